"""Open Inference Protocol v2: outputs and a model's metadata to response bodies."""

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version as installed_version
from typing import Any, NamedTuple

import numpy as np
import orjson

from service.gateway.dtypes import OIP, not_carried
from service.gateway.errors import NotAcceptable, NotText
from service.gateway.query import OipQuery, RequestedOutput
from service.gateway.statistics import Duration, Statistics
from sluice.wire.model_ref import ModelRef
from sluice.wire.oip_tensors import datatype_of, encode_raw
from sluice.wire.protos.serving_pb2 import ModelVersionStatus
from sluice.wire.signature import Signature, TensorSpec
from sluice.wire.tensors import Array

READY, UNAVAILABLE = "READY", "UNAVAILABLE"
_TRITON_STATES = {"AVAILABLE": READY, "LOADING": "LOADING", "UNLOADING": "UNLOADING"}


class InferBody(NamedTuple):
    """A body and the length of the JSON it starts with; None where it is JSON alone."""

    data: bytes
    json_length: int | None


def encode_infer(
    outputs: Mapping[str, Array], version: int, model: ModelRef, query: OipQuery
) -> InferBody:
    """The answer to an infer request. Raises NotText for strings that JSON cannot carry."""
    wanted = wanted_outputs(outputs, query)
    tensors, raw = [], []
    for output in wanted:
        array = outputs[output.name]
        tensor = described(output.name, array)
        if output.binary:
            raw.append(encode_raw(array))
            tensor["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            tensor["data"] = _plain(array, output.name)
        tensors.append(tensor)
    document = {"model_name": model.name, "model_version": str(version), "outputs": tensors}
    if query.id is not None:
        document["id"] = query.id
    text = _dump(document, [outputs[output.name] for output in wanted if not output.binary])
    return InferBody(b"".join([text, *raw]), len(text) if raw else None)


def wanted_outputs(outputs: Iterable[str], query: OipQuery) -> Sequence[RequestedOutput]:
    """Those that are named, else all."""
    return query.outputs or [
        RequestedOutput(name, query.binary_outputs) for name in sorted(outputs)
    ]


def described(name: str, array: Array) -> dict[str, Any]:
    """An output tensor less its elements. Raises NotAcceptable where the protocol has no such
    datatype."""
    if reason := not_carried(array.dtype, OIP):
        raise NotAcceptable(f'Output "{name}": {reason}')
    return {"name": name, "datatype": datatype_of(array.dtype), "shape": list(array.shape)}


def encode_server() -> dict[str, Any]:
    """What this server is."""
    return {
        "name": "sluice",
        "version": installed_version("sluice"),
        "extensions": ["binary_tensor_data", "parameters", "statistics"],
    }


def encode_index(
    models: Mapping[str, Sequence[ModelVersionStatus]], *, only_ready: bool
) -> list[dict[str, str]]:
    """Triton's repository index: the versions of each model, or that there are none."""
    entries = []
    for name, versions in models.items():
        for each in versions:
            state = _TRITON_STATES.get(ModelVersionStatus.State.Name(each.state), UNAVAILABLE)
            reason = each.status.error_message
            entries.append(
                {"name": name, "version": str(each.version), "state": state, "reason": reason}
            )
        if not versions:
            reason = "the model server has no such model"
            entries.append({"name": name, "version": "", "state": UNAVAILABLE, "reason": reason})
    return [each for each in entries if each["state"] == READY or not only_ready]


def encode_statistics(models: Mapping[str, Mapping[str, Statistics]]) -> dict[str, Any]:
    """Triton's statistics, of models by name and version. What nothing counts here is 0: the making
    of the answer, a cache."""
    return {
        "model_stats": [
            _statistics(name, version, counted)
            for name, versions in models.items()
            for version, counted in versions.items()
        ]
    }


def _statistics(name: str, version: str, counted: Statistics) -> dict[str, Any]:
    nothing = Duration()
    steps = {
        "success": counted.success,
        "fail": counted.fail,
        "queue": counted.queue,
        "compute_input": counted.decode,
        "compute_infer": counted.upstream,
        "compute_output": nothing,
        "cache_hit": nothing,
        "cache_miss": nothing,
    }
    return {
        "name": name,
        "version": version,
        "inference_count": round(counted.rows),
        "execution_count": round(counted.calls),
        "inference_stats": {
            step: {"count": round(each.count), "ns": round(each.seconds * 1e9)}
            for step, each in steps.items()
        },
        "batch_stats": [],
    }


def encode_metadata(model: ModelRef, versions: list[int], signature: Signature) -> dict[str, Any]:
    """What a model takes and gives: -1 for any size."""
    return {
        "name": model.name,
        "versions": [str(version) for version in versions],
        "platform": "tensorflow_savedmodel",
        "inputs": [_specified(spec) for spec in signature.inputs.values()],
        "outputs": [_specified(spec) for spec in signature.outputs.values()],
    }


def _specified(spec: TensorSpec) -> dict[str, Any]:
    sizes = (None,) if spec.shape is None else spec.shape
    shape = [-1 if size is None else size for size in sizes]
    return {"name": spec.name, "datatype": datatype_of(spec.dtype), "shape": shape}


def _plain(array: Array, name: str) -> Any:
    """The elements in row-major order, as the protocol's own clients expect them."""
    flat = array.ravel()
    if array.dtype.kind == "O":
        try:
            return [string.decode() for string in flat]
        except UnicodeDecodeError:
            raise NotText(
                f'Output "{name}" holds bytes that are no text; ask for it as binary_data'
            ) from None
    if array.dtype.kind in "iub" or array.dtype in (np.float32, np.float64):
        return flat
    return flat.astype(np.float32)


def _dump(document: dict[str, Any], arrays: list[Array]) -> bytes:
    if all(array.dtype.kind in "iubO" or np.isfinite(array).all() for array in arrays):
        return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return json.dumps(document, default=lambda array: array.tolist()).encode()

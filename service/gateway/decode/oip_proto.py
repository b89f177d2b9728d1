"""Open Inference Protocol v2: gRPC's ModelInferRequest to a query.

Its inputs are either all raw, in `raw_input_contents`, or each in the field of its datatype.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from google.protobuf.message import DecodeError

from service.gateway.decode.foreign import door
from service.gateway.decode.oip import (
    check_count,
    check_output,
    check_unseen,
    declared,
    raw_tensor,
    shaped,
    timeout_s,
)
from service.gateway.decode.shapes import MAX_STRINGS, rank_fault
from service.gateway.errors import InvalidInput, MalformedRequest
from service.gateway.query import OipQuery, RequestedOutput
from service.gateway.signatures import Signatures
from sluice.wire.contract import DEFAULT_SIGNATURE
from sluice.wire.large_tensors import Values
from sluice.wire.model_ref import ModelRef
from sluice.wire.oip_tensors import CONTENTS, datatype_of
from sluice.wire.packed import Packed
from sluice.wire.protos.inference_pb2 import ModelInferRequest
from sluice.wire.signature import Signature, TensorSpec
from sluice.wire.tensors import Array, string_array
from sluice.wire.versions import version_number

InputTensor = ModelInferRequest.InferInputTensor


def decode_model(name: str, version: str) -> ModelRef:
    """The model of a request; a version is a number or, in this server, a label."""
    if not version:
        return ModelRef(name)
    number = version_number(version)
    return ModelRef(name, label=version) if number is None else ModelRef(name, version=number)


@door("The ModelInferRequest")
def decode_model_infer(
    request: ModelInferRequest,
    signatures: Signatures,
    values: Mapping[str, Values] = MappingProxyType({}),
) -> OipQuery:
    """The query; the answer is to be raw if the request is.

    values: what was cut out of the inputs' contents, by the input's name.

    Raises UnknownSignature, MalformedRequest, UnknownInput or InvalidInput.
    """
    name = (
        request.parameters["signature_name"].string_param
        if ("signature_name" in request.parameters)
        else ""
    )
    signature = signatures.get(name or DEFAULT_SIGNATURE)
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise MalformedRequest(
            f"/raw_input_contents: expected {len(request.inputs)}, one for each "
            f"of the inputs, got {len(raw)}"
        )
    return OipQuery(
        signature,
        _decode_inputs(request, values, signature),
        id=request.id or None,
        outputs=_decode_outputs(request, signature, binary=bool(raw)),
        binary_outputs=bool(raw),
        timeout_s=_timeout_s(request),
    )


def _timeout_s(request: ModelInferRequest) -> float | None:
    if "timeout" not in request.parameters:
        return None
    given = request.parameters["timeout"]
    choice = given.WhichOneof("parameter_choice")
    return timeout_s(getattr(given, choice) if choice else None)


def _decode_inputs(
    request: ModelInferRequest, values: Mapping[str, Values], signature: Signature
) -> dict[str, Array]:
    inputs: dict[str, Array] = {}
    for index, tensor in enumerate(request.inputs):
        pointer = f"/inputs/{index}"
        spec = declared(tensor.name, tensor.datatype, signature, pointer)
        check_unseen(spec.name, inputs, pointer)
        if not request.raw_input_contents:
            inputs[spec.name] = _typed_tensor(tensor, values.get(tensor.name, {}), spec, pointer)
        elif tensor.HasField("contents"):
            raise MalformedRequest(f"{pointer}/contents: expected none beside raw_input_contents")
        else:
            inputs[spec.name] = raw_tensor(
                request.raw_input_contents[index], _shape(tensor, spec, pointer), spec, pointer
            )
    return inputs


def _typed_tensor(tensor: InputTensor, cut: Values, spec: TensorSpec, pointer: str) -> Array:
    field = CONTENTS.get(datatype_of(spec.dtype))
    if field is None:
        raise InvalidInput(
            spec.name,
            f"raw_input_contents, as gRPC carries {datatype_of(spec.dtype)}",
            "none",
            pointer,
        )
    shape = _shape(tensor, spec, pointer)
    if spec.is_string:
        return shaped(
            _strings(getattr(tensor.contents, field), spec, pointer), shape, spec, pointer
        )
    if field in cut:
        count = cut[field].count()
        check_count(count, shape, spec, pointer)
        values = _unpack(cut[field], count, f"{pointer}/contents/{field}")
    else:
        values = np.asarray(getattr(tensor.contents, field))
    return shaped(_numbers(values, spec, f"{pointer}/contents/{field}"), shape, spec, pointer)


def _shape(tensor: InputTensor, spec: TensorSpec, pointer: str) -> list[int]:
    """Of more sizes than an array can have no list is made: of 60 million that takes seconds, in
    which no other thread runs."""
    if fault := rank_fault(len(tensor.shape)):
        raise InvalidInput(spec.name, "a shape, a list of sizes", fault, pointer)
    return list(tensor.shape)


def _unpack(packed: Packed, count: int, pointer: str) -> Array:
    try:
        return packed.read(count)
    except DecodeError as error:
        raise MalformedRequest(f"{pointer}: {error}") from error


def _strings(values: Sequence[bytes], spec: TensorSpec, pointer: str) -> Array:
    if len(values) > MAX_STRINGS:
        raise InvalidInput(spec.name, f"at most {MAX_STRINGS} strings", f"{len(values)}", pointer)
    return string_array(values)


def _numbers(values: Array, spec: TensorSpec, pointer: str) -> Array:
    """A field's values in the dtype that is declared, which can be narrower than the field."""
    if spec.dtype.kind in "iu" and values.size:
        bounds = np.iinfo(spec.dtype)
        outside = (values < bounds.min) | (values > bounds.max)
        if outside.any():
            index = int(outside.argmax())
            raise InvalidInput(
                spec.name,
                f"{spec.dtype.name}, {bounds.min} to {bounds.max}",
                str(values[index]),
                f"{pointer}/{index}",
            )
    return values.astype(spec.dtype, copy=False)


def _decode_outputs(
    request: ModelInferRequest, signature: Signature, binary: bool
) -> tuple[RequestedOutput, ...]:
    names: list[str] = []
    for index, output in enumerate(request.outputs):
        check_output(output.name, signature, f"/outputs/{index}")
        check_unseen(output.name, names, f"/outputs/{index}")
        names.append(output.name)
    return tuple(RequestedOutput(name, binary) for name in names)

"""The calls of a client as the gateway's HTTP has them: the Open Inference Protocol with binary
tensors for predictions, and TensorFlow Serving's REST for what a model is. Pure."""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from google.protobuf import json_format

from sluice.client import errors
from sluice.client._calls import (
    Call,
    GetMetadata,
    GetStatus,
    IsReady,
    ListModels,
    Predict,
)
from sluice.client.results import ModelMetadata, Prediction, VersionStatus
from sluice.wire.data_types import TensorError
from sluice.wire.model_ref import ModelRef
from sluice.wire.oip_tensors import DATATYPES, JSON_LENGTH, datatype_of, decode_raw, encode_raw
from sluice.wire.protos import serving_pb2 as serving
from sluice.wire.tensors import Array
from sluice.wire.versions import version_number

# A test walks every status that the gateway answers. Others are BadRequest below 500, and
# ServerFailed else; 502 is a proxy's word for a server that is down.
STATUSES: dict[int, type[errors.ClientError]] = {
    401: errors.NotAllowed,
    403: errors.NotAllowed,
    404: errors.NotFound,
    405: errors.NotSupported,
    408: errors.DeadlineExceeded,
    413: errors.TooLarge,
    429: errors.Overloaded,
    499: errors.Cancelled,
    501: errors.NotSupported,
    502: errors.Unavailable,
    503: errors.Unavailable,
    504: errors.DeadlineExceeded,
}
NPZ = "application/x-npz"
OPENING_CHARACTERS = 200  # of an error page in place of JSON


class HttpRequest(NamedTuple):
    """A call as HTTP, with a body, or with the fields of a form: (name, (file's name, content))."""

    method: str
    path: str
    body: bytes = b""
    headers: dict[str, str] = {}  # noqa: RUF012 - never written to
    form: Sequence[tuple[str, tuple[str | None, bytes]]] = ()


class HttpReply(NamedTuple):
    """An answer, read whole. `headers` are found whatever the case of their letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def encode_call(call: Call[Any]) -> HttpRequest:
    match call:
        case Predict(pictures=frozenset(pictures)) if pictures:
            return _encode_form(call)
        case Predict():
            return _encode_infer(call)
        case GetMetadata(model):
            return HttpRequest("GET", f"/v1/models/{_place(model, 'labels')}/metadata")
        case GetStatus(name):
            return HttpRequest("GET", f"/v1/models/{quote(name, safe='')}")
        case IsReady(None):
            return HttpRequest("GET", "/v2/health/ready")
        case IsReady(str(name)):
            return HttpRequest("GET", f"/v2/models/{quote(name, safe='')}/ready")
        case ListModels():
            return HttpRequest("GET", "/v1/models")
    raise errors.NotSupported(f"the gateway's HTTP has no call for {type(call).__name__}")


def decode_reply(call: Call[Any], reply: HttpReply) -> Any:
    """Raises the error that the status stands for, and BadReply."""
    if reply.status >= 400:
        raise error_of_status(reply)
    try:
        return _decode(call, reply)
    except (
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        json_format.ParseError,
        TensorError,
    ) as error:
        raise errors.BadReply(
            f"The answer cannot be read ({type(error).__name__}: {error}); "
            f"is a Sluice gateway there? It begins: {_opening(reply.body)}",
            str(reply.status),
        ) from error


def error_of_status(reply: HttpReply) -> errors.ClientError:
    """With the server's own message where it has one."""
    kind = STATUSES.get(
        reply.status, errors.BadRequest if reply.status < 500 else errors.ServerFailed
    )
    message, code = _message(reply), str(reply.status)
    if issubclass(kind, errors.TryLater):
        return kind(message, code, _retry_after_s(reply.headers.get("Retry-After", "")))
    return kind(message, code)


def _place(model: ModelRef, labels: str = "versions") -> str:
    """The model in a path; the Open Inference Protocol has only versions, which are any string.

    >>> _place(ModelRef("digits", label="canary")), _place(ModelRef("a/b", 3), "labels")
    ('digits/versions/canary', 'a%2Fb/versions/3')
    """
    name = quote(model.name, safe="")
    if model.version is not None:
        return f"{name}/versions/{model.version}"
    if model.label is not None:
        return f"{name}/{labels}/{quote(model.label, safe='')}"
    return name


def _encode_infer(call: Predict) -> HttpRequest:
    """JSON that describes the tensors, then their bytes."""
    raw = [encode_raw(array) for array in call.inputs.values()]
    document: dict[str, Any] = {
        "parameters": {"signature_name": call.signature, "binary_data_output": True},
        "inputs": [
            {
                "name": name,
                "datatype": datatype_of(array.dtype),
                "shape": array.shape,
                "parameters": {"binary_data_size": len(data)},
            }
            for (name, array), data in zip(call.inputs.items(), raw, strict=True)
        ],
    }
    if call.outputs:
        document["outputs"] = [
            {"name": name, "parameters": {"binary_data": True}} for name in call.outputs
        ]
    text = json.dumps(document).encode()
    return HttpRequest(
        "POST",
        f"/v2/models/{_place(call.model)}/infer",
        b"".join([text, *raw]),
        {JSON_LENGTH: str(len(text)), "Content-Type": "application/octet-stream"},
    )


def _encode_form(call: Predict) -> HttpRequest:
    """Files as fields of a form, whose pictures the gateway decodes, and numbers a row a field."""
    fields: list[tuple[str, tuple[str | None, bytes]]] = []
    for name, array in call.inputs.items():
        if name in call.pictures:
            fields += [(name, (name, content)) for content in array]
        else:
            fields += [(name, (None, json.dumps(row.tolist()).encode())) for row in array]
    place, signature = _place(call.model, "labels"), quote(call.signature, safe="")
    return HttpRequest(
        "POST",
        f"/v1/models/{place}:predict?signature_name={signature}",
        headers={"Accept": NPZ},
        form=fields,
    )


def _decode_npz(call: Predict, reply: HttpReply) -> Prediction:
    with np.load(io.BytesIO(reply.body), allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    outputs = {
        name: array.astype(object) if array.dtype.kind == "S" else array
        for name, array in found.items()
        if not call.outputs or name in call.outputs
    }
    return Prediction(outputs, call.model.name, call.model.version, call.signature, call.inputs)


def _decode(call: Call[Any], reply: HttpReply) -> Any:
    match call:
        case Predict(pictures=frozenset(pictures)) if pictures:
            return _decode_npz(call, reply)
        case Predict():
            return _decode_infer(call, reply)
        case GetMetadata(model):
            return _decode_metadata(model, json.loads(reply.body))
        case GetStatus():
            status = serving.GetModelStatusResponse()
            json_format.ParseDict(json.loads(reply.body), status, ignore_unknown_fields=True)
            return [VersionStatus.from_proto(each) for each in status.model_version_status]
        case IsReady():
            return True
        case ListModels():
            return [each["name"] for each in json.loads(reply.body)["models"]]


def _decode_infer(call: Predict, reply: HttpReply) -> Prediction:
    length = int(reply.headers.get(JSON_LENGTH, len(reply.body)))
    document, raw = json.loads(reply.body[:length]), memoryview(reply.body)[length:]
    outputs = {}
    for tensor in document["outputs"]:
        size = tensor.get("parameters", {}).get("binary_data_size", 0)
        outputs[tensor["name"]] = _decode_tensor(tensor, raw[:size])
        raw = raw[size:]
    version = version_number(document.get("model_version", ""))
    return Prediction(outputs, call.model.name, version, call.signature, call.inputs)


def _decode_tensor(tensor: dict[str, Any], raw: memoryview) -> Array:
    dtype, shape = DATATYPES[tensor["datatype"]], tensor["shape"]
    if "data" not in tensor:
        return decode_raw(raw, dtype).reshape(shape)
    if dtype.kind != "O":
        return np.array(tensor["data"], dtype).reshape(shape)
    texts = np.array(tensor["data"], object).ravel()
    return np.array([text.encode() for text in texts], object).reshape(shape)


def _decode_metadata(model: ModelRef, document: dict[str, Any]) -> ModelMetadata:
    signatures = serving.SignatureDefMap()
    json_format.ParseDict(
        document["metadata"]["signature_def"], signatures, ignore_unknown_fields=True
    )
    return ModelMetadata.from_proto(model.name, int(document["model_spec"]["version"]), signatures)


def _message(reply: HttpReply) -> str:
    try:
        return str(json.loads(reply.body)["error"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP status {reply.status}: {_opening(reply.body)}"


def _retry_after_s(text: str) -> float:
    """Of the header's two forms the one in seconds; 0 for the other, a date.

    >>> _retry_after_s("7"), _retry_after_s("Wed, 21 Oct 2026 07:28:00 GMT")
    (7.0, 0)
    """
    return float(text) if text.isascii() and text.isdigit() else 0


def _opening(body: bytes) -> str:
    """The first words of a body, on one line.

    >>> _opening(b"<h1>Not\\n here</h1>")
    '<h1>Not here</h1>'
    """
    return " ".join(body[:OPENING_CHARACTERS].decode(errors="replace").split()) or "(nothing)"

"""PredictionLogs: the requests in TensorFlow Serving's warm-up files, and those that a gateway has
captured, which say beside them which version answered, and when.
"""

from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from sluice.wire.contract import DEFAULT_SIGNATURE
from sluice.wire.model_ref import ModelRef
from sluice.wire.protos.serving_pb2 import LogMetadata, PredictionLog
from sluice.wire.tfrecords import BadRecord
from sluice.wire.varint import head

PREDICT_LOG, CLASSIFY_LOG, REGRESS_LOG = "predict_log", "classify_log", "regress_log"
MULTI_INFERENCE_LOG = "multi_inference_log"
KINDS = (PREDICT_LOG, CLASSIFY_LOG, REGRESS_LOG, MULTI_INFERENCE_LOG)

_NUMBERS = {kind: PredictionLog.DESCRIPTOR.fields_by_name[kind].number for kind in KINDS}
_ABOUT = PredictionLog.DESCRIPTOR.fields_by_name["log_metadata"].number
_REQUEST = 1  # in the log of each kind


class Logged(NamedTuple):
    """One request. `request` is the message that `kind` says, `model` the one that answered it, as
    far as that is known, `seconds` when, since 1970; 0: unknown.

    >>> Logged(PREDICT_LOG, None, ModelRef("digits", 3), "encoded", 1, 0).model.version
    3
    """

    kind: str
    request: Any
    model: ModelRef
    signature: str
    rows: int
    seconds: int


def log_about(model: ModelRef, seconds: int) -> bytes:
    """What `encode_log` takes to say who answered, and when.

    >>> log_about(ModelRef("digits", 3), 0)
    b'\\n\\x0c\\n\\x06digits\\x12\\x02\\x08\\x03'
    """
    return LogMetadata(model_spec=model.to_proto(), timestamp_secs=seconds).SerializeToString()


def encode_log(kind: str, request: bytes, about: bytes = b"") -> bytes:
    """The serialized PredictionLog of a serialized request: protobuf would read it, and write it
    again.

    >>> from sluice.wire.protos.serving_pb2 import ModelSpec, PredictRequest
    >>> request = PredictRequest(model_spec=ModelSpec(name="digits"))
    >>> record = encode_log(PREDICT_LOG, request.SerializeToString())
    >>> PredictionLog.FromString(record).predict_log.request == request
    True
    """
    return log_head(kind, len(request), about) + request


def log_head(kind: str, size: int, about: bytes = b"") -> bytes:
    r"""What stands in a serialized PredictionLog before a request of `size` bytes.

    >>> log_head(PREDICT_LOG, 5)
    b'2\x07\n\x05'
    """
    within = head(_REQUEST, size)
    outer = head(_NUMBERS[kind], len(within) + size)
    metadata = head(_ABOUT, len(about)) + about if about else b""
    return metadata + outer + within


def read_log(record: bytes) -> Logged:
    """The request in a serialized PredictionLog. Raises BadRecord where there is none.

    >>> from sluice.wire.protos.serving_pb2 import ModelSpec, PredictRequest
    >>> request = PredictRequest(model_spec=ModelSpec(name="digits", signature_name="encoded"))
    >>> about = log_about(ModelRef("digits", 3), 1_800_000_000)
    >>> found = read_log(encode_log(PREDICT_LOG, request.SerializeToString(), about))
    >>> found.model.version, found.signature, found.rows
    (3, 'encoded', 1)
    """
    try:
        log = PredictionLog.FromString(record)
    except DecodeError as error:
        raise BadRecord(f"it is no PredictionLog: {error}") from error
    kind = log.WhichOneof("log_type")
    if kind is None:
        raise BadRecord("it is a PredictionLog without a request")
    request = getattr(log, kind).request
    specs = [each.model_spec for each in getattr(request, "tasks", [request])]
    about = log.log_metadata
    known = about.model_spec if about.HasField("model_spec") else specs[0] if specs else None
    return Logged(
        kind,
        request,
        ModelRef.from_proto(known) if known is not None else ModelRef(""),
        ", ".join(spec.signature_name or DEFAULT_SIGNATURE for spec in specs),
        _rows(kind, request),
        about.timestamp_secs,
    )


def _rows(kind: str, request: Any) -> int:
    if kind != PREDICT_LOG:
        given = request.input
        return len(given.example_list.examples) or len(given.example_list_with_context.examples)
    shapes = [tensor.tensor_shape.dim for tensor in request.inputs.values()]
    return next((int(shape[0].size) for shape in shapes if shape), 1)

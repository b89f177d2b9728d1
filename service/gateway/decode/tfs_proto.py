"""TensorFlow Serving's PredictRequest to a Query."""

import math
from collections.abc import Mapping
from types import MappingProxyType

from service.gateway.decode.foreign import door
from service.gateway.decode.shapes import MAX_STRINGS, shape_fault
from service.gateway.errors import InputTooLarge, InvalidInput
from service.gateway.query import Query
from service.gateway.signatures import Signatures
from sluice.wire.contract import DEFAULT_SIGNATURE
from sluice.wire.data_types import TensorError, numpy_dtype
from sluice.wire.large_tensors import Contents, Values
from sluice.wire.protos import serving_pb2 as serving
from sluice.wire.protos.tensorflow_pb2 import TensorProto
from sluice.wire.signature import Signature, dtype_name, shape_text
from sluice.wire.tensors import Array, decode_shape, decode_tensor

# What one value may be spread over: 40 bytes of a message are not to take a body's worth of memory.
MAX_FILLED_BYTES = 1 << 20


@door("The PredictRequest")
def decode_predict(
    request: serving.PredictRequest,
    contents: Contents,
    signatures: Signatures,
    max_bytes: int,
    values: Mapping[str, Values] = MappingProxyType({}),
) -> Query:
    """The query of a request whose large contents and many values were cut out; no tensor of it
    takes more than `max_bytes`, and none that too few values are to fill more than
    MAX_FILLED_BYTES.

    Raises UnknownSignature, or InvalidInput for a tensor that contradicts itself or the
    signature's dtype. TensorFlow Serving casts no dtype either (row "predict, wrong dtype").
    """
    signature = signatures.get(request.model_spec.signature_name or DEFAULT_SIGNATURE)
    inputs = _decode_inputs(request.inputs, contents, values, signature, max_bytes)
    return Query(signature, inputs)


def _decode_inputs(
    protos: Mapping[str, TensorProto],
    contents: Contents,
    values: Mapping[str, Values],
    signature: Signature,
    max_bytes: int,
) -> dict[str, Array]:
    inputs = {}
    for name, proto in protos.items():
        spec = signature.inputs.get(name)
        try:
            _check_size(name, proto, max_bytes)
            # No string stands for many rows: it may be a picture, which many would decode.
            most = 0 if spec and spec.is_string else min(max_bytes, MAX_FILLED_BYTES)
            array = decode_tensor(proto, most, contents.get(name), values.get(name))
        except TensorError as error:
            raise InvalidInput(name, str(spec or "a tensor"), str(error)) from None
        if spec and spec.dtype != array.dtype:
            raise InvalidInput(name, str(spec), f"{dtype_name(array.dtype)} values")
        inputs[name] = array
    return inputs


def _check_size(name: str, proto: TensorProto, max_bytes: int) -> None:
    """One typed value is spread over any shape, here and by the model server."""
    dtype, shape = numpy_dtype(proto.dtype), decode_shape(proto.tensor_shape)
    if fault := shape_fault(shape):
        raise InvalidInput(name, "a shape that a tensor can have", fault)
    count = math.prod(shape)
    if dtype.kind == "O" and max(count, len(proto.string_val)) > MAX_STRINGS:
        raise InputTooLarge(name, f"at most {MAX_STRINGS} strings", "more")
    size = count * dtype.itemsize
    if size > max_bytes:
        raise InputTooLarge(
            name,
            f"a tensor of at most {max_bytes} bytes",
            f"{dtype_name(dtype)} {shape_text(shape)}, {size} bytes",
            hint="SLUICE_MAX_BODY_BYTES",
        )

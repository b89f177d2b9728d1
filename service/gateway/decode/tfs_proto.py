"""TensorFlow Serving's PredictRequest, as far as a rule needs its content: to a Query.

The request is passed on as the bytes it came in. Its elements are looked at only where they are
images; every other input is stood in for by an array of its dtype and shape that holds nothing
(docs/decisions/0005-grpc-in-the-gateways-workers.md).
"""

import math
from collections.abc import Mapping

import numpy as np

from service.gateway.decode.foreign import door
from service.gateway.decode.images import check_content
from service.gateway.decode.shapes import MAX_STRINGS, shape_fault
from service.gateway.errors import InputTooLarge, InvalidInput
from service.gateway.query import Query
from service.gateway.signature import (
    ModelSpec,
    Signature,
    Signatures,
    dtype_name,
    shape_text,
)
from sluice.wire.contract import DEFAULT_SIGNATURE
from sluice.wire.protos import serving_pb2 as serving
from sluice.wire.protos.tensorflow_pb2 import TensorProto
from sluice.wire.tensors import Array, TensorError, decode_shape, decode_tensor, numpy_dtype


def decode_model_spec(spec: serving.ModelSpec) -> ModelSpec:
    choice = spec.WhichOneof("version_choice")
    return ModelSpec(
        spec.name,
        spec.version.value if choice == "version" else None,
        spec.version_label if choice == "version_label" else None,
    )


@door("The PredictRequest")
def decode_predict(
    request: serving.PredictRequest, signatures: Signatures, max_bytes: int, max_pixels: int
) -> Query:
    """The query to validate, no tensor of which takes more than `max_bytes`.

    Raises UnknownSignature, or InvalidInput for a tensor that contradicts itself or the
    signature's dtype. TensorFlow Serving casts no dtype either (row "predict, wrong dtype").
    """
    signature = signatures.get(request.model_spec.signature_name or DEFAULT_SIGNATURE)
    inputs = _decode_inputs(request.inputs, signature, max_bytes)
    return check_content(Query(signature, inputs), max_pixels)


def _decode_inputs(
    protos: Mapping[str, TensorProto], signature: Signature, max_bytes: int
) -> dict[str, Array]:
    inputs = {}
    for name, proto in protos.items():
        spec = signature.inputs.get(name)
        try:
            array = _stand_in(name, proto, max_bytes)
            if spec and spec.dtype != array.dtype:
                raise InvalidInput(name, str(spec), f"{dtype_name(array.dtype)} values")
            if spec and spec.is_string:
                array = _strings(name, proto, array.size)
        except TensorError as error:
            raise InvalidInput(name, str(spec or "a tensor"), str(error)) from None
        inputs[name] = array
    return inputs


def _stand_in(name: str, proto: TensorProto, max_bytes: int) -> Array:
    """An array of the tensor's dtype and shape whose elements are one and the same."""
    dtype, shape = numpy_dtype(proto.dtype), decode_shape(proto.tensor_shape)
    if fault := shape_fault(shape):
        raise InvalidInput(name, "a shape that a tensor can have", fault)
    size = math.prod(shape) * dtype.itemsize
    if size > max_bytes:  # one typed value is spread over any shape, by the model server
        raise InputTooLarge(
            name,
            f"a tensor of at most {max_bytes} bytes",
            f"{dtype_name(dtype)} {shape_text(shape)}, {size} bytes",
            hint="SLUICE_MAX_BODY_BYTES",
        )
    return np.broadcast_to(np.empty((), dtype), shape)


def _strings(name: str, proto: TensorProto, count: int) -> Array:
    """The strings themselves: an image can be among them, of which no rule of the model's knows."""
    if max(count, len(proto.string_val)) > MAX_STRINGS:
        raise InputTooLarge(name, f"at most {MAX_STRINGS} strings", "more")
    return decode_tensor(proto, max_filled_bytes=0)  # and no string that stands for many rows

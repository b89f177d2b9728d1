"""Outputs to TensorFlow Serving's PredictResponse."""

from service.gateway.answer import Answer
from sluice.wire.model_ref import ModelRef
from sluice.wire.protos import serving_pb2 as serving
from sluice.wire.tensors import encode_tensor


def encode_predict(answer: Answer, model: ModelRef, signature_name: str) -> bytes:
    """The serialized reply: typed values, as TensorFlow Serving's are, and the version that
    answered."""
    spec = ModelRef(model.name, answer.version).to_proto(signature_name)
    response = serving.PredictResponse(model_spec=spec)
    for name, array in answer.outputs.items():
        response.outputs[name].CopyFrom(encode_tensor(array))
    return response.SerializeToString()

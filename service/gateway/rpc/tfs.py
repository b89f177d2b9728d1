"""TensorFlow Serving's gRPC API.

Predict is decoded, checked and joined as over HTTP. The others are passed on as the bytes they
came in, once their images are held to the same rules.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar

from google.protobuf.message import Message

from service.gateway.caller import Caller
from service.gateway.decode.tfs_proto import decode_predict
from service.gateway.encode.tfs_proto import encode_predict
from service.gateway.errors import MalformedRequest, NotImplementedByServer
from service.gateway.model_server import GET_STATUS, MULTI_INFERENCE
from service.gateway.predictions import Predictions
from service.gateway.query import Query
from service.gateway.rpc.edge import Method, read_message
from sluice.wire.contract import PREDICTION_SERVICE
from sluice.wire.large_tensors import Contents, Values, cut, cut_values
from sluice.wire.model_ref import ModelRef
from sluice.wire.protos import serving_pb2 as serving
from sluice.wire.protos.tensorflow_pb2 import TensorProto

DIALECT = "tfs-grpc"
AnyMessage = TypeVar("AnyMessage", bound=Message)


class PredictCall(NamedTuple):
    """A PredictRequest, and what was cut out of it."""

    request: serving.PredictRequest
    contents: Contents
    values: Mapping[str, Values]
    size: int


class PassedOn(NamedTuple):
    """A message of any kind, and the bytes it came in."""

    message: Any
    data: bytes


class Tfs:
    """The methods of both services, by name."""

    def __init__(self, predictions: Predictions) -> None:
        self._predictions = predictions

    def prediction_service(self) -> Mapping[str, Method[Any]]:
        return {
            "Predict": Method(DIALECT, "predict", _parse_predict, self._predict),
            "Classify": self._passed_on(serving.ClassificationRequest, "Classify"),
            "Regress": self._passed_on(serving.RegressionRequest, "Regress"),
            "MultiInference": Method(
                DIALECT,
                "multi_inference",
                _parse_multi_inference,
                partial(self._forward, MULTI_INFERENCE),
            ),
            "GetModelMetadata": self._passed_on(
                serving.GetModelMetadataRequest, "GetModelMetadata"
            ),
        }

    def model_service(self) -> Mapping[str, Method[Any]]:
        return {
            "GetModelStatus": Method(
                DIALECT, "status", _parser(serving.GetModelStatusRequest), self._status
            ),
            "HandleReloadConfigRequest": Method(
                DIALECT, "reload", lambda data: (ModelRef(""), data), self._reload
            ),
        }

    async def _predict(self, model: ModelRef, call: PredictCall, caller: Caller) -> bytes:
        request, settings = call.request, self._predictions.settings

        def decode(signatures: Any) -> Query:
            most = settings.max_body_bytes
            return decode_predict(request, call.contents, signatures, most, call.values)

        query, answer = await self._predictions.infer(
            model,
            decode,
            caller,
            size=call.size - sum(map(len, call.contents.values())),
            outputs=lambda _: tuple(request.output_filter),
        )
        return await self._predictions.encoded(
            answer.outputs, partial(encode_predict, answer, model, query.signature.name), caller
        )

    async def _forward(self, path: str, model: ModelRef, call: PassedOn, caller: Caller) -> bytes:
        examples = getattr(call.message, "input", None)
        return await self._predictions.forward(path, call.data, model, caller, examples)

    async def _status(self, model: ModelRef, call: PassedOn, caller: Caller) -> bytes:
        if model.label is not None:  # GetModelStatus passes an unknown label over; this does not
            await self._predictions.metadata(model, caller)
        return await self._predictions.forward(GET_STATUS, call.data, model, caller)

    async def _reload(self, _: ModelRef, __: bytes, ___: Caller) -> bytes:
        raise NotImplementedByServer(
            "The gateway does not change which models are served; send "
            "HandleReloadConfigRequest to the model server itself"
        )

    def _passed_on(self, kind: type[Message], name: str) -> Method[Any]:
        path = f"/{PREDICTION_SERVICE}/{name}"
        return Method(DIALECT, name.lower(), _parser(kind), partial(self._forward, path))


def _parse_predict(data: bytes) -> tuple[ModelRef, PredictCall]:
    inputs, value = serving.PredictRequest.INPUTS_FIELD_NUMBER, 2  # of a map's entry
    rest, contents = cut(data, inputs)
    rest, values = cut_values(rest, inputs, value, TensorProto)
    request = read_message(serving.PredictRequest, rest)
    call = PredictCall(request, contents, values, len(data))
    return ModelRef.from_proto(request.model_spec), call


def _parse_multi_inference(data: bytes) -> tuple[ModelRef, PassedOn]:
    """All tasks are about one model, as TensorFlow Serving demands, in these words: it is the one
    that the caller has to be let in for. Raises MalformedRequest."""
    message = read_message(serving.MultiInferenceRequest, data)
    if len({task.model_spec.name for task in message.tasks}) > 1:
        raise MalformedRequest(
            "All ModelSpecs in a MultiInferenceRequest must access the same model name."
        )
    spec = message.tasks[0].model_spec if message.tasks else serving.ModelSpec()
    return ModelRef.from_proto(spec), PassedOn(message, data)


def _parser(kind: type[AnyMessage]) -> Callable[[bytes], tuple[ModelRef, PassedOn]]:
    def parse(data: bytes) -> tuple[ModelRef, PassedOn]:
        message: Any = read_message(kind, data)
        return ModelRef.from_proto(message.model_spec), PassedOn(message, data)

    return parse

"""The Open Inference Protocol v2 over gRPC, as KServe's and Triton's clients speak it."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar

from google.protobuf.message import Message

from service.gateway.answer import Answer
from service.gateway.caller import Caller
from service.gateway.decode.oip_proto import decode_model, decode_model_infer
from service.gateway.encode.oip import (
    encode_index,
    encode_metadata,
    encode_server,
    encode_statistics,
)
from service.gateway.encode.oip_proto import encode_model_infer
from service.gateway.errors import NotFound, RequestError
from service.gateway.predictions import Predictions
from service.gateway.query import OipQuery
from service.gateway.readiness import readiness
from service.gateway.rpc.edge import Method, read_message
from sluice.wire.large_tensors import Values, cut_values
from sluice.wire.model_ref import ModelRef
from sluice.wire.protos import inference_pb2 as inference

DIALECT = "oip-grpc"
AnyMessage = TypeVar("AnyMessage", bound=Message)


class InferCall(NamedTuple):
    """A ModelInferRequest, and the many values that were cut out of it, by their input's name."""

    request: inference.ModelInferRequest
    values: Mapping[str, Values]
    size: int


class Oip:
    """The methods of the service, by name."""

    def __init__(self, predictions: Predictions) -> None:
        self._predictions = predictions

    def methods(self) -> Mapping[str, Method[Any]]:
        return {
            "ServerLive": _of_server(inference.ServerLiveRequest, "live", self._live),
            "ServerReady": _of_server(inference.ServerReadyRequest, "ready", self._ready),
            "ServerMetadata": _of_server(
                inference.ServerMetadataRequest, "server_metadata", self._server_metadata
            ),
            "ModelReady": _of_model(inference.ModelReadyRequest, "model_ready", self._model_ready),
            "ModelMetadata": _of_model(inference.ModelMetadataRequest, "metadata", self._metadata),
            "ModelInfer": Method(DIALECT, "infer", _parse_infer, self._infer),
            "RepositoryIndex": _of_server(
                inference.RepositoryIndexRequest, "repository_index", self._repository_index
            ),
            "ModelStatistics": _of_model(
                inference.ModelStatisticsRequest, "statistics", self._statistics
            ),
        }

    async def _infer(self, model: ModelRef, call: InferCall, caller: Caller) -> bytes:
        request = call.request
        query, answer = await self._predictions.infer(
            model,
            partial(decode_model_infer, request, values=call.values),
            caller,
            size=call.size - sum(map(len, request.raw_input_contents)),
            outputs=OipQuery.wanted,
        )
        return await self._predictions.encoded(
            answer.outputs, partial(_encode, answer, model, query), caller
        )

    async def _metadata(self, model: ModelRef, _: Any, caller: Caller) -> bytes:
        signature = (await self._predictions.signatures(model, caller)).get()
        versions = await self._predictions.available_versions(model.name, caller)
        found = encode_metadata(model, versions, signature)
        return inference.ModelMetadataResponse(**found).SerializeToString()

    async def _model_ready(self, model: ModelRef, _: Any, caller: Caller) -> bytes:
        """A model that is not there is not ready; GetModelMetadata answers for ready ones only."""
        try:
            await self._predictions.metadata(model, caller)
        except (NotFound, RequestError):
            return inference.ModelReadyResponse(ready=False).SerializeToString()
        return inference.ModelReadyResponse(ready=True).SerializeToString()

    async def _repository_index(
        self, _: ModelRef, request: inference.RepositoryIndexRequest, caller: Caller
    ) -> bytes:
        found = await self._predictions.listing(caller)
        entries = encode_index(found, only_ready=request.ready)
        return inference.RepositoryIndexResponse(models=entries).SerializeToString()

    async def _statistics(self, model: ModelRef, _: Any, caller: Caller) -> bytes:
        found = encode_statistics(await self._predictions.statistics(model, caller))
        return inference.ModelStatisticsResponse(**found).SerializeToString()

    async def _server_metadata(self, _: ModelRef, __: Any, ___: Caller) -> bytes:
        return inference.ServerMetadataResponse(**encode_server()).SerializeToString()

    async def _live(self, _: ModelRef, __: Any, ___: Caller) -> bytes:
        return inference.ServerLiveResponse(live=True).SerializeToString()

    async def _ready(self, _: ModelRef, __: Any, ___: Caller) -> bytes:
        state = await readiness(self._predictions)
        return inference.ServerReadyResponse(ready=state.ready).SerializeToString()


def _encode(answer: Answer, model: ModelRef, query: OipQuery) -> bytes:
    return encode_model_infer(answer.outputs, answer.version, model, query).SerializeToString()


def _parse_infer(data: bytes) -> tuple[ModelRef, InferCall]:
    inputs = inference.ModelInferRequest.INPUTS_FIELD_NUMBER
    contents = inference.ModelInferRequest.InferInputTensor.CONTENTS_FIELD_NUMBER
    rest, values = cut_values(data, inputs, contents, inference.InferTensorContents)
    request = read_message(inference.ModelInferRequest, rest)
    call = InferCall(request, values, len(data))
    return decode_model(request.model_name, request.model_version), call


def _of_server(kind: type[AnyMessage], verb: str, answer: Callable[..., Any]) -> Method[Any]:
    return Method(DIALECT, verb, lambda data: (ModelRef(""), read_message(kind, data)), answer)


def _of_model(kind: type[AnyMessage], verb: str, answer: Callable[..., Any]) -> Method[Any]:
    def parse(data: bytes) -> tuple[ModelRef, Any]:
        request: Any = read_message(kind, data)
        return decode_model(request.name, request.version), request

    return Method(DIALECT, verb, parse, answer)

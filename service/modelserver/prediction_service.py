"""tensorflow.serving.PredictionService over a repository and a runner."""

# ruff: noqa: N802 (methods have the names that the .proto gives them)
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol, TypeVar

from service.modelserver.errors import InvalidArgument
from service.modelserver.examples import ClassifyCall, MultiInferenceCall, RegressCall
from service.modelserver.predict import (
    PredictCall,
    PredictParts,
    Signatures,
    fill_spec,
    parse_predict,
)
from service.modelserver.repository import Repository
from service.modelserver.runner import Runner
from service.modelserver.servable import Run
from sluice.wire.protos.serving_pb2 import (
    ClassificationRequest,
    ClassificationResponse,
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    ModelSpec,
    MultiInferenceRequest,
    MultiInferenceResponse,
    PredictResponse,
    RegressionRequest,
    RegressionResponse,
    SignatureDefMap,
)
from sluice.wire.tensors import Array

Request = TypeVar("Request")
Reply = TypeVar("Reply", covariant=True)


class Call(Protocol[Reply]):
    """A request held against a model: what to run, and what to make of the outcome."""

    run: Run

    def respond(self, tensors: Mapping[str, Array], version: int) -> Reply: ...


PARSERS = {"Predict": parse_predict}


class PredictionService:
    """Each call finds its version, has the signature run, and fills the reply.

    `content`: outputs travel in tensor_content rather than in typed values.
    """

    def __init__(self, repository: Repository, runner: Runner, content: bool = False) -> None:
        self._repository, self._runner, self._content = repository, runner, content

    async def Predict(self, parts: PredictParts) -> PredictResponse:
        call = partial(PredictCall, content=self._content, contents=parts.contents)
        return await self._answer(call, parts.model_spec, parts.request)

    async def Classify(self, request: ClassificationRequest) -> ClassificationResponse:
        return await self._answer(ClassifyCall, request.model_spec, request)

    async def Regress(self, request: RegressionRequest) -> RegressionResponse:
        return await self._answer(RegressCall, request.model_spec, request)

    async def MultiInference(self, request: MultiInferenceRequest) -> MultiInferenceResponse:
        spec = request.tasks[0].model_spec if request.tasks else ModelSpec()
        return await self._answer(MultiInferenceCall, spec, request)

    async def GetModelMetadata(self, request: GetModelMetadataRequest) -> GetModelMetadataResponse:
        _check_fields(request)
        with self._repository.lease(request.model_spec) as (version, servable):
            signatures = SignatureDefMap(signature_def=servable.signatures)
        response = GetModelMetadataResponse()
        response.metadata["signature_def"].Pack(signatures)
        fill_spec(response.model_spec, request.model_spec.name, version)
        return response

    async def _answer(
        self,
        call_class: Callable[[Signatures, Request], Call[Reply]],
        spec: ModelSpec,
        request: Request,
    ) -> Reply:
        with self._repository.lease(spec) as (version, servable):
            call = call_class(servable.signatures, request)
            tensors = await self._runner.run(servable, call.run)
        return call.respond(tensors, version)


def _check_fields(request: GetModelMetadataRequest) -> None:
    if not request.metadata_field:
        raise InvalidArgument("GetModelMetadataRequest must specify at least one metadata_field")
    for field in request.metadata_field:
        if field != "signature_def":
            raise InvalidArgument(f"Metadata field {field} is not supported")

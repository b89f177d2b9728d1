"""tensorflow.serving.PredictionService over a repository and a runner."""

# ruff: noqa: N802 (methods have the names that the .proto gives them)
from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

from service.modelserver.calls import Deadline
from service.modelserver.errors import InvalidArgument
from service.modelserver.examples import ClassifyPlan, MultiInferencePlan, RegressPlan
from service.modelserver.predict import (
    PredictParts,
    PredictPlan,
    SignatureDefs,
    fill_spec,
    parse_predict,
)
from service.modelserver.repository import Repository
from service.modelserver.runner import Runner
from service.modelserver.servable import Run, Tensors
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

AnyRequest = TypeVar("AnyRequest")
AnyResponse = TypeVar("AnyResponse", covariant=True)

# By method, how its request is read where it is more than the message itself (calls.py).
PREDICTION_PARSERS = {"Predict": parse_predict}


class Plan(Protocol[AnyResponse]):
    """A request held against a model: what to run, and what to make of the outcome."""

    run: Run

    def respond(self, tensors: Tensors, version: int) -> AnyResponse: ...


class PredictionService:
    """Each call finds its version, has the signature run, and fills the reply.

    `content`: outputs travel in tensor_content rather than in typed values.
    """

    def __init__(self, repository: Repository, runner: Runner, content: bool = False) -> None:
        self._repository, self._runner, self._content = repository, runner, content

    async def Predict(self, parts: PredictParts, deadline: Deadline = None) -> PredictResponse:
        make_plan = partial(PredictPlan, content=self._content, contents=parts.contents)
        return await self._answer(make_plan, parts.model_spec, parts.request, deadline)

    async def Classify(
        self, request: ClassificationRequest, deadline: Deadline = None
    ) -> ClassificationResponse:
        return await self._answer(ClassifyPlan, request.model_spec, request, deadline)

    async def Regress(
        self, request: RegressionRequest, deadline: Deadline = None
    ) -> RegressionResponse:
        return await self._answer(RegressPlan, request.model_spec, request, deadline)

    async def MultiInference(
        self, request: MultiInferenceRequest, deadline: Deadline = None
    ) -> MultiInferenceResponse:
        spec = request.tasks[0].model_spec if request.tasks else ModelSpec()
        return await self._answer(MultiInferencePlan, spec, request, deadline)

    async def GetModelMetadata(
        self, request: GetModelMetadataRequest, _: Deadline = None
    ) -> GetModelMetadataResponse:
        _check_fields(request)
        with self._repository.lease(request.model_spec) as (version, servable):
            signatures = SignatureDefMap(signature_def=servable.signatures)
        response = GetModelMetadataResponse()
        response.metadata["signature_def"].Pack(signatures)
        fill_spec(response.model_spec, request.model_spec.name, version)
        return response

    async def _answer(
        self,
        make_plan: Callable[[SignatureDefs, AnyRequest], Plan[AnyResponse]],
        spec: ModelSpec,
        request: AnyRequest,
        deadline: Deadline,
    ) -> AnyResponse:
        with self._repository.lease(spec) as (version, servable):
            plan = servable.plan(make_plan, request)
            tensors = await self._runner.run(servable, plan.run, deadline)
        return plan.respond(tensors, version)


def _check_fields(request: GetModelMetadataRequest) -> None:
    if not request.metadata_field:
        raise InvalidArgument("GetModelMetadataRequest must specify at least one metadata_field")
    for field in request.metadata_field:
        if field != "signature_def":
            raise InvalidArgument(f"Metadata field {field} is not supported")

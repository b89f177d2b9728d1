"""tensorflow.serving.PredictionService over a repository and a runner."""
from typing import Any

from service.modelserver import examples
from service.modelserver.errors import InvalidArgument
from service.modelserver.examples import Labels, Values
from service.modelserver.predict import PredictCall, fill_spec
from service.modelserver.repository import Repository
from service.modelserver.rpc import Context, Recorder, ignore_call, rpc
from service.modelserver.runner import Runner
from service.modelserver.servable import Servable
from service.protos import serving_pb2_grpc
from service.protos.serving_pb2 import (
    ClassificationRequest,
    ClassificationResponse,
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    InferenceResult,
    Input,
    ModelSpec,
    MultiInferenceRequest,
    MultiInferenceResponse,
    PredictRequest,
    PredictResponse,
    RegressionRequest,
    RegressionResponse,
    SignatureDefMap,
)
from service.tensors import Array


class PredictionService(serving_pb2_grpc.PredictionServiceServicer):
    """Each method finds the version, has its signature run, and fills the reply.

    `content`: outputs travel in tensor_content rather than in typed values.
    """

    def __init__(self, repository: Repository, runner: Runner, content: bool = False,
                 record: Recorder = ignore_call) -> None:
        self._repository, self._runner, self._content = repository, runner, content
        self.record = record

    @rpc
    async def Predict(self, request: PredictRequest, _: Context) -> PredictResponse:  # noqa: N802
        with self._repository.lease(request.model_spec) as (version, servable):
            call = PredictCall(servable.signatures, request)
            tensors = await self._runner.run(servable, call.run)
        return call.respond(tensors, version, request, self._content)

    @rpc
    async def Classify(  # noqa: N802
            self, request: ClassificationRequest, _: Context) -> ClassificationResponse:
        response = ClassificationResponse()
        with self._repository.lease(request.model_spec) as (version, servable):
            labels = examples.find_labels(servable.signatures, request.model_spec)
            tensors, count = await self._run_examples(servable, request.input, [labels])
        response.result.MergeFrom(labels.result(tensors, count))
        _fill(response.model_spec, request.model_spec, version)
        return response

    @rpc
    async def Regress(  # noqa: N802
            self, request: RegressionRequest, _: Context) -> RegressionResponse:
        response = RegressionResponse()
        with self._repository.lease(request.model_spec) as (version, servable):
            values = examples.find_values(servable.signatures, request.model_spec)
            tensors, count = await self._run_examples(servable, request.input, [values])
        response.result.MergeFrom(values.result(tensors, count))
        _fill(response.model_spec, request.model_spec, version)
        return response

    @rpc
    async def MultiInference(  # noqa: N802
            self, request: MultiInferenceRequest, _: Context) -> MultiInferenceResponse:
        spec = request.tasks[0].model_spec if request.tasks else ModelSpec()
        with self._repository.lease(spec) as (version, servable):
            found = examples.find_tasks(servable.signatures, request.tasks)
            tensors, count = await self._run_examples(servable, request.input, found)
        response = MultiInferenceResponse()
        for asked, task in zip(request.tasks, found, strict=True):
            result = response.results.add()
            _fill_result(result, task, tensors, count)
            _fill(result.model_spec, asked.model_spec, version)
        return response

    @rpc
    async def GetModelMetadata(  # noqa: N802
            self, request: GetModelMetadataRequest, _: Context) -> GetModelMetadataResponse:
        _check_fields(request)
        with self._repository.lease(request.model_spec) as (version, servable):
            signatures = SignatureDefMap(signature_def=servable.signatures)
        response = GetModelMetadataResponse()
        response.metadata["signature_def"].Pack(signatures)
        fill_spec(response.model_spec, request.model_spec.name, version)
        return response

    async def _run_examples(self, servable: Servable, source: Input,
                            tasks: list[Any]) -> tuple[dict[str, Array], int]:
        """The tasks' tensors and the number of examples."""
        serialized = examples.serialize_examples(source)
        run = examples.examples_run(serialized, tasks)
        return await self._runner.run(servable, run), len(serialized)


def _fill(spec: ModelSpec, asked: ModelSpec, version: int) -> None:
    fill_spec(spec, asked.name, version, examples.signature_name(asked))


def _fill_result(result: InferenceResult, task: Labels | Values, tensors: dict[str, Array],
                 count: int) -> None:
    if isinstance(task, Labels):
        result.classification_result.MergeFrom(task.result(tensors, count))
    else:
        result.regression_result.MergeFrom(task.result(tensors, count))


def _check_fields(request: GetModelMetadataRequest) -> None:
    if not request.metadata_field:
        raise InvalidArgument("GetModelMetadataRequest must specify at least one metadata_field")
    for field in request.metadata_field:
        if field != "signature_def":
            raise InvalidArgument(f"Metadata field {field} is not supported")

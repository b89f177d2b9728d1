"""tensorflow.serving.ModelService over a repository."""
import asyncio

from service.modelserver.errors import InvalidArgument
from service.modelserver.repository import Repository
from service.modelserver.rpc import Calls, Context, rpc
from service.protos import serving_pb2_grpc
from service.protos.serving_pb2 import (
    GetModelStatusRequest,
    GetModelStatusResponse,
    ReloadConfigRequest,
    ReloadConfigResponse,
    StatusProto,
)


class ModelService(serving_pb2_grpc.ModelServiceServicer):
    """How the models are, and which ones there are to be."""

    def __init__(self, repository: Repository, calls: Calls) -> None:
        self._repository, self.calls = repository, calls

    @rpc
    async def GetModelStatus(  # noqa: N802
            self, request: GetModelStatusRequest, _: Context) -> GetModelStatusResponse:
        if not request.HasField("model_spec"):
            raise InvalidArgument("Missing ModelSpec")
        return GetModelStatusResponse(
            model_version_status=self._repository.status(request.model_spec))

    @rpc
    async def HandleReloadConfigRequest(  # noqa: N802
            self, request: ReloadConfigRequest, _: Context) -> ReloadConfigResponse:
        if request.config.WhichOneof("config") != "model_config_list":
            raise InvalidArgument("ServerModelConfig type not supported by "
                                  "HandleReloadConfigRequest. Only ModelConfigList is currently "
                                  "supported")
        # In a thread: it waits until the new models are loaded.
        await asyncio.to_thread(self._repository.reload, request.config.model_config_list.config)
        return ReloadConfigResponse(status=StatusProto())

"""tensorflow.serving.ModelService over a repository."""

# ruff: noqa: N802 (methods have the names that the .proto gives them)
import asyncio

from service.modelserver.errors import InvalidArgument
from service.modelserver.repository import Repository
from sluice.wire.protos.serving_pb2 import (
    GetModelStatusRequest,
    GetModelStatusResponse,
    ReloadConfigRequest,
    ReloadConfigResponse,
    StatusProto,
)


class ModelService:
    """How the models are, and which ones there are to be."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    async def GetModelStatus(self, request: GetModelStatusRequest) -> GetModelStatusResponse:
        if not request.HasField("model_spec"):
            raise InvalidArgument("Missing ModelSpec")
        return GetModelStatusResponse(
            model_version_status=self._repository.status(request.model_spec)
        )

    async def HandleReloadConfigRequest(self, request: ReloadConfigRequest) -> ReloadConfigResponse:
        if request.config.WhichOneof("config") != "model_config_list":
            raise InvalidArgument(
                "ServerModelConfig type not supported by "
                "HandleReloadConfigRequest. Only ModelConfigList is currently "
                "supported"
            )
        # In a thread: it waits until the new models are loaded.
        await asyncio.to_thread(self._repository.reload, request.config.model_config_list.config)
        return ReloadConfigResponse(status=StatusProto())

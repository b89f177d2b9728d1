"""tensorflow.serving.ModelService over a repository."""

# ruff: noqa: N802 (methods have the names that the .proto gives them)
import asyncio

from service.modelserver.calls import Deadline
from service.modelserver.errors import InvalidArgument, PermissionDenied
from service.modelserver.repository import Repository
from sluice.wire.protos.serving_pb2 import (
    GetModelStatusRequest,
    GetModelStatusResponse,
    ReloadConfigRequest,
    ReloadConfigResponse,
    StatusProto,
)


class ModelService:
    """How the models are, and which ones there are to be.

    `may_reload`: whether callers may say the latter.
    """

    def __init__(self, repository: Repository, may_reload: bool = True) -> None:
        self._repository, self._may_reload = repository, may_reload

    async def GetModelStatus(
        self, request: GetModelStatusRequest, _: Deadline = None
    ) -> GetModelStatusResponse:
        if not request.HasField("model_spec"):
            raise InvalidArgument("Missing ModelSpec")
        return GetModelStatusResponse(
            model_version_status=self._repository.status(request.model_spec)
        )

    async def HandleReloadConfigRequest(
        self, request: ReloadConfigRequest, _: Deadline = None
    ) -> ReloadConfigResponse:
        if not self._may_reload:
            raise PermissionDenied(
                "Which models are served is not for callers to say here; the server that allows it "
                "is started with --allow_reload_config=true"
            )
        if request.config.WhichOneof("config") != "model_config_list":
            raise InvalidArgument(
                "ServerModelConfig type not supported by "
                "HandleReloadConfigRequest. Only ModelConfigList is currently "
                "supported"
            )
        # In a thread: it waits until the new models are loaded.
        await asyncio.to_thread(self._repository.reload, request.config.model_config_list.config)
        return ReloadConfigResponse(status=StatusProto())

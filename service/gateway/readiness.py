"""Whether this gateway can serve: the question behind every dialect's readiness probe."""

from typing import NamedTuple

from service.gateway.errors import ModelServerError
from service.gateway.model_server import ModelServer
from service.gateway.settings import Settings

PROBE_TIMEOUT_S = 2.0
# Whether this name is served does not matter: any answer shows that the model server is there.
_ANY_MODEL = "-"


class Readiness(NamedTuple):
    """The verdict, why, and each named model's part in it."""

    ready: bool
    reason: str
    models: dict[str, bool]


def readiness(settings: Settings, server: ModelServer) -> Readiness:
    """Ready when a model is AVAILABLE at the model server; when it answers, where none is named."""
    names = settings.model_names()
    try:
        available = {
            name: server.is_available(name, PROBE_TIMEOUT_S) for name in names or [_ANY_MODEL]
        }
    except ModelServerError as error:
        return Readiness(False, str(error), {})
    if not names:
        return Readiness(True, "the model server answers; no model is named", {})
    if not any(available.values()):
        return Readiness(False, "no model is AVAILABLE", available)
    return Readiness(True, "a model is AVAILABLE", available)

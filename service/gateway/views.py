"""What answers about a model over HTTP: a coroutine, whichever way the request came in."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from service.gateway.caller import Caller
from service.gateway.http import HttpRequest, HttpResponse
from service.gateway.predictions import Predictions
from sluice.wire.model_ref import ModelRef

Handler = Callable[[Predictions, ModelRef, HttpRequest, Caller], Awaitable[HttpResponse]]
PROBE = "probe"


@dataclass(frozen=True)
class ModelView:
    """A handler, and what metrics and traces call it."""

    handler: Handler
    dialect: str
    verb: str
    route: str  # the path, as Flask's URL map has it

    @property
    def is_probe(self) -> bool:
        """Answered past admission, and neither counted nor logged."""
        return self.dialect == PROBE


def model_of(where: dict[str, Any]) -> ModelRef:
    """The model that the variables of a path name; one without a name where they name none."""
    return ModelRef(where.get("name", ""), where.get("version"), where.get("label"))

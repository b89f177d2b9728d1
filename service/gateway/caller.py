"""On whose behalf the model server is called: until when, what is passed on, and who cancels it."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any


class Caller:
    """Nobody in particular: nothing shortens the call, and nothing cancels it."""

    def time_left_s(self, most_s: float) -> float:
        """How long a call may take that may take `most_s` by itself."""
        return most_s

    def call(self, method: Callable[..., Any], request: Any, timeout_s: float) -> Any:
        """The reply of the model server's `method`, a gRPC callable."""
        return method(request, timeout=timeout_s)


CALLER: ContextVar[Caller] = ContextVar("caller", default=Caller())  # noqa: B039 (it has no state)

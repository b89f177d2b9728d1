"""What the steps of a request's way tell what they do, whether anybody listens or not.

`NoTracer` and `NoTrace` are told where SLUICE_TRACING is off: calls that do nothing, no library.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from service.gateway.caller import Caller
    from service.gateway.exchange import Exchange

Metadata = tuple[tuple[str, str], ...]


class Trace(Protocol):
    """Of one request. Times are on the monotonic clock, seconds."""

    @property
    def ids(self) -> tuple[str, str] | None:
        """Of the trace and of the request's span, in hexadecimal, for the log; None for none."""

    def step(self, name: str, began: float) -> None:
        """A step that began then is done."""

    def call(
        self, method: str, server: str, metadata: Metadata
    ) -> AbstractContextManager[Metadata]:
        """Around one call of "/SERVICE/METHOD" at a server; gives the metadata to call with."""

    def joined(self, traces: Sequence["Trace"]) -> "Trace":
        """Of a call that is made for several requests at once, this one among them."""

    def end(self, exchange: "Exchange", caller: "Caller") -> None:
        """The request has been answered."""


class Tracer(Protocol):
    """Begins traces."""

    def begin(self, method: str, route: str, metadata: Metadata, began: float) -> Trace:
        """Of a request whose first byte came at `began`. `method` is HTTP's, or GRPC, of which the
        route is "/SERVICE/METHOD"; `metadata` has the client's own trace, if it has one."""

    def close(self) -> None:
        """Send what has not been sent, and end; it may take some seconds."""


class NoTrace:
    """Keeps nothing."""

    ids = None

    def step(self, name: str, began: float) -> None:
        pass

    def call(
        self, method: str, server: str, metadata: Metadata
    ) -> AbstractContextManager[Metadata]:
        del method, server
        return nullcontext(metadata)

    def joined(self, traces: Sequence[Trace]) -> Trace:
        del traces
        return self

    def end(self, exchange: "Exchange", caller: "Caller") -> None:
        pass


NO_TRACE = NoTrace()


class NoTracer:
    """Traces nothing."""

    def begin(self, method: str, route: str, metadata: Metadata, began: float) -> Trace:
        del method, route, metadata, began
        return NO_TRACE

    def close(self) -> None:
        pass


NO_TRACER = NoTracer()

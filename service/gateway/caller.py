"""On whose behalf the model server is called: until when, and what is passed on to it."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

# Headers of a request, and metadata of a gRPC call, that the model server gets as they came.
PASSED_ON = frozenset({"x-request-id", "traceparent", "tracestate"})

Metadata = tuple[tuple[str, str], ...]


@dataclass
class Caller:
    """One request's caller, and what became of the request, for the metrics and the log.

    `deadline` is on the monotonic clock, seconds: the time by which an answer is of use.
    """

    deadline: float
    metadata: Metadata = ()
    began: float = field(default_factory=time.monotonic)
    # Filled in on the way.
    signature: str = ""
    version: int | None = None
    rows: int = 0
    joined: int = 0  # rows of the call that it went with, its own included
    queued_s: float = 0.0
    upstream_s: float = 0.0
    decode_s: float = 0.0

    @classmethod
    def within(cls, seconds: float, metadata: Metadata = ()) -> "Caller":
        """One whose answer is wanted within `seconds` from now."""
        now = time.monotonic()
        return cls(now + seconds, metadata, now)

    def time_left_s(self) -> float:
        return self.deadline - time.monotonic()


def passed_on(pairs: Iterable[tuple[str, str]]) -> Metadata:
    return tuple((name, value) for name, value in pairs if name in PASSED_ON)

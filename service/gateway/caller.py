"""On whose behalf the model server is called: until when, and what is passed on to it."""

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from service.gateway.access.account import FREE, AnyAccount
from service.gateway.access.grant import EVERYTHING, Grant
from service.gateway.tracing.trace import NO_TRACE, Metadata, Trace
from sluice.wire.tensors import Array

REQUEST_ID = "x-request-id"
CACHE_CONTROL = "cache-control"
_TRACE = ("traceparent", "tracestate")  # W3C's, which the model server gets as they came
_MAX_ID = 128  # characters of a client's own request id
_MAX_TRACE = 1024  # W3C has 512 passed on at the least; gRPC takes 8 kB of metadata in all


@dataclass(slots=True)
class Caller:
    """One request's caller, and what became of the request, for the metrics and the log.

    `deadline` is on the monotonic clock, seconds: the time by which an answer is of use.
    """

    deadline: float
    request_id: str = ""
    metadata: Metadata = ()  # for the model server
    headers: Mapping[str, str] = field(default_factory=dict)  # or gRPC metadata, as they came
    began: float = field(default_factory=time.monotonic)
    certificate: bytes = b""  # of the client, PEM, as TLS has verified it; b"" for none
    # What it may ask, and how much, once it has been let in.
    grant: Grant = EVERYTHING
    account: AnyAccount = FREE
    no_store: bool = False  # its answer is neither to be kept nor one that was kept (RFC 9111)
    trace: Trace = NO_TRACE
    # Filled in on the way.
    signature: str = ""
    version: int | None = None
    rows: int = 0
    joined: int = 0  # rows of the call that it went with, its own included
    queued_s: float = 0.0
    upstream_s: float = 0.0
    decode_s: float = 0.0
    cache: str = ""  # of a model whose answers are kept, what came of it: one of caching.py's
    age_s: float = 0.0  # of an answer that was kept
    novelty: Array | None = None  # as the model says it of each row
    answered: bool = False  # or given up: nothing is owed to it any more

    @classmethod
    def within(cls, seconds: float) -> "Caller":
        """The gateway itself, which wants an answer within `seconds` from now."""
        now = time.monotonic()
        return cls(now + seconds, began=now)

    @classmethod
    def of(
        cls, headers: Mapping[str, str], began: float, seconds: float, certificate: bytes = b""
    ) -> "Caller":
        """Whoever sent a request with these headers, or gRPC metadata, by lower-case name, whose
        first byte came at `began` and whose answer is of use for `seconds` from then on, over a
        connection for which its client showed the certificate.

        A request id that is no printable ASCII, or none, is replaced by one of ours; a trace that
        is none, or too long, is not passed on.
        """
        given = headers.get(REQUEST_ID, "")[:_MAX_ID]
        request_id = given if _is_metadata(given) else f"{random.getrandbits(64):016x}"
        traces = tuple(
            (name, value)
            for name in _TRACE
            if _is_metadata(value := headers.get(name, "")) and len(value) <= _MAX_TRACE
        )
        metadata = ((REQUEST_ID, request_id), *traces)
        no_store = CACHE_CONTROL in headers and _is_no_store(headers[CACHE_CONTROL])
        return cls(
            began + seconds,
            request_id,
            metadata,
            headers,
            began,
            certificate,
            no_store=no_store,
        )

    def at(self, peer: str) -> str:
        """What the log calls it: the address that it calls from, and before that its key's id."""
        return f"{self.grant.id}@{peer}" if self.grant.id else peer

    @property
    def time_s(self) -> float:
        """That it has in all."""
        return self.deadline - self.began

    def time_left_s(self) -> float:
        return self.deadline - time.monotonic()

    @property
    def called_s(self) -> float:
        """What its call took, the wait for its turn included; 0.0 where there was none."""
        return self.queued_s + self.upstream_s


def _is_no_store(directives: str) -> bool:
    """Whether one of them asks for an answer of the model's own, as a browser's reload does too.

    >>> _is_no_store("max-age=0, No-Store"), _is_no_store("max-age=0")
    (True, False)
    """
    given = {each.strip().lower() for each in directives.split(",")}
    return not given.isdisjoint(("no-store", "no-cache"))


def _is_metadata(text: str) -> bool:
    """Whether gRPC takes it for a value."""
    return bool(text) and text.isascii() and text.isprintable()

"""Traces by OpenTelemetry's SDK, which reads its own variables OTEL_*; sent by OTLP over gRPC.

Spans and attributes have the names of the semantic conventions 1.45 for HTTP and RPC; ours are
`sluice.*`, and the steps within. Steps are told once they are done, so what is measured for the
metrics is what the trace shows.

A call for several joined requests is a span of the first that is traced, with links to the others,
each of which has one to the call.
"""

import asyncio
import atexit
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from urllib.parse import unquote

import grpc
from opentelemetry import trace as api
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.gateway.caller import Caller
from service.gateway.exchange import Exchange
from service.gateway.tracing.trace import Metadata, Trace

SERVICE = "sluice-gateway"  # unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES say another
CLOSE_S = 2.0  # for what has not been sent at the end
GRPC = "GRPC"
# Of gRPC's statuses those that are the server's fault, as the conventions have it.
SERVER_ERRORS = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
_W3C = TraceContextTextMapPropagator()


class OtelTracer:
    """For one process, in which it starts a thread that sends. `scheme` is that of the URLs."""

    def __init__(self, scheme: str) -> None:
        said = OTELResourceDetector().detect().attributes
        resource = Resource.create({SERVICE_NAME: said.get(SERVICE_NAME, SERVICE)})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._exporter = OTLPSpanExporter()
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        atexit.register(self.close)
        self._tracer = self._provider.get_tracer("sluice")
        self._scheme = scheme

    def begin(self, method: str, route: str, metadata: Metadata, began: float) -> Trace:
        if method == GRPC:
            name, attributes = _rpc(route)
        else:
            name = f"{method} {route}"
            attributes = {
                "http.request.method": method,
                "http.route": route,
                "url.scheme": self._scheme,
            }
        clock = _Clock()
        span = self._tracer.start_span(
            name,
            _W3C.extract(dict(metadata), Context()),
            api.SpanKind.SERVER,
            attributes,
            start_time=clock.of(began),
        )
        return OtelTrace(self._tracer, span, clock)

    def close(self) -> None:
        atexit.unregister(self.close)
        # The SDK goes on trying a collector that is away, for longer than a drain should take.
        giving_up = threading.Timer(CLOSE_S, self._exporter.shutdown)
        giving_up.daemon = True
        giving_up.start()
        self._provider.shutdown()
        giving_up.cancel()


class OtelTrace:
    """`span` is the request's; `others` are those that its calls are made for as well."""

    def __init__(
        self,
        tracer: api.Tracer,
        span: api.Span,
        clock: "_Clock",
        others: "Sequence[OtelTrace]" = (),
    ) -> None:
        self.tracer, self.span, self.clock, self.others = tracer, span, clock, others
        self.context = api.set_span_in_context(span, Context())

    @property
    def ids(self) -> tuple[str, str] | None:
        found = self.span.get_span_context()
        if not found.is_valid:
            return None
        return api.format_trace_id(found.trace_id), api.format_span_id(found.span_id)

    def step(self, name: str, began: float) -> None:
        if self.span.is_recording():
            start = self.clock.of(began)
            self.tracer.start_span(name, self.context, start_time=start).end(self.clock.now())

    def call(self, method: str, server: str, metadata: Metadata) -> "_Call":
        return _Call(self, method, server, metadata)

    def joined(self, traces: Sequence[Trace]) -> Trace:
        traced = [each for each in traces if isinstance(each, OtelTrace) and each.is_recording]
        if not traced:
            return self
        first, *others = traced
        return OtelTrace(self.tracer, first.span, first.clock, others)

    @property
    def is_recording(self) -> bool:
        """Whether it is kept, and not ended yet."""
        return self.span.is_recording()

    def end(self, exchange: Exchange, caller: Caller) -> None:
        if not self.is_recording:
            return
        self.span.set_attributes(_of_answer(exchange) | _of_prediction(exchange, caller))
        error = _error_of(exchange)
        if error:
            _fail(self.span, error, exchange.reason)
        self.span.end(self.clock.now())


class _Call:
    """A span around one call to a model server."""

    def __init__(self, trace: OtelTrace, method: str, server: str, metadata: Metadata) -> None:
        self._trace, self._metadata = trace, metadata
        self._name, attributes = _rpc(method)
        self._attributes = attributes | _address(server)

    def __enter__(self) -> Metadata:
        trace = self._trace
        others = [each for each in trace.others if each.is_recording]
        self._span = trace.tracer.start_span(
            self._name,
            trace.context,
            api.SpanKind.CLIENT,
            self._attributes,
            [api.Link(each.span.get_span_context()) for each in others],
            trace.clock.now(),
        )
        for each in others:
            each.span.add_link(self._span.get_span_context())
        carrier = dict(self._metadata)
        _W3C.inject(carrier, api.set_span_in_context(self._span, Context()))
        return tuple(carrier.items())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._span.is_recording():
            code = _code_of(error)
            self._span.set_attribute("rpc.response.status_code", code)
            if code != "OK":
                _fail(self._span, code, "")
            self._span.end(self._trace.clock.now())


class _Clock:
    """The wall's time, in ns since 1970, by the monotonic clock: no step ends before it begins."""

    __slots__ = ("_offset_ns",)

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def of(self, seconds: float) -> int:
        return int(seconds * 1e9) + self._offset_ns

    def now(self) -> int:
        return time.monotonic_ns() + self._offset_ns


def _rpc(path: str) -> tuple[str, dict[str, str | int]]:
    """The name and attributes of a span that is about "/SERVICE/METHOD"."""
    method = path.removeprefix("/")
    return method, {"rpc.system.name": "grpc", "rpc.method": method}


def _address(server: str) -> dict[str, str | int]:
    host, port = _place(server)
    return {"server.address": host} | ({"server.port": port} if port else {})


def _place(peer: str) -> tuple[str, int]:
    """The host and the port, 0 for none, of an address in gRPC's words, or in HTTP's.

    >>> (
    ...     _place("ipv4:10.0.0.1:8500"),
    ...     _place("ipv6:%5B::1%5D:80"),
    ...     _place("unix:/run/s"),
    ...     _place("::1"),
    ... )
    (('10.0.0.1', 8500), ('::1', 80), ('/run/s', 0), ('::1', 0))
    """
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return peer.removeprefix("unix:"), 0
    host, _, port = unquote(rest).rpartition(":")
    return host.strip("[]"), int(port)


def _of_answer(exchange: Exchange) -> dict[str, str | int]:
    client = {"client.address": _place(exchange.client.rpartition("@")[2])[0]}
    if exchange.method == GRPC:
        return {"rpc.response.status_code": exchange.status, **client}
    return {
        "http.response.status_code": int(exchange.status),
        "url.path": _writable(exchange.path),
        **client,
    }


def _of_prediction(exchange: Exchange, caller: Caller) -> dict[str, str | int]:
    known = {
        "sluice.dialect": exchange.dialect,
        "sluice.request_id": exchange.request_id,
        "sluice.model": exchange.model,
        "sluice.version": caller.version,
        "sluice.signature": caller.signature,
        "sluice.rows": caller.rows,
        "sluice.joined_rows": caller.joined,
    }
    return {name: value for name, value in known.items() if value}


def _error_of(exchange: Exchange) -> str:
    """What went wrong that is the gateway's, or the model server's; "" for nothing."""
    if exchange.method == GRPC:
        return exchange.status if exchange.status in SERVER_ERRORS else ""
    return exchange.status if int(exchange.status) >= 500 else ""


def _fail(span: api.Span, kind: str, reason: str) -> None:
    span.set_attribute("error.type", kind)
    span.set_status(api.StatusCode.ERROR, _writable(reason) or None)


def _writable(text: str) -> str:
    """As UTF-8 can hold it: half a character, which a client can send, would cost every span that
    is sent with it."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _code_of(error: BaseException | None) -> str:
    if error is None:
        return "OK"
    if isinstance(error, grpc.aio.AioRpcError):
        return error.code().name
    return "CANCELLED" if isinstance(error, asyncio.CancelledError) else "UNKNOWN"

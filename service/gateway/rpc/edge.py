"""The edge between the dialects' methods and gRPC: bytes in and out, errors to statuses."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from service.gateway.access.grant import OPERATION_OF, PREDICT
from service.gateway.access.limits import BYTES
from service.gateway.admission import Arrival
from service.gateway.caching import told
from service.gateway.caller import Caller
from service.gateway.error_responses import FAILED, grpc_code_of, headers_of
from service.gateway.errors import Busy, GatewayError, MalformedRequest, ShuttingDown
from service.gateway.exchange import Exchange
from service.gateway.gateway import Gateway
from service.gateway.headers import combined
from service.gateway.rpc.arrivals import Arrivals
from service.gateway.rpc.packing import beginning, is_packed, small, unpack
from sluice.wire.model_ref import ModelRef

Request = TypeVar("Request")
AnyMessage = TypeVar("AnyMessage", bound=Message)

MAX_DETAILS = 2000  # bytes; a client takes 8 kB of trailers, percent-encoded, and no more
QUIET_S = 0.1

log = logging.getLogger(__name__)
Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True)
class Method(Generic[Request]):
    """A method of a service: `parse` reads a message, or the beginning of one, and says which model
    it is about (one without a name where it is about none), `answer` answers it. Both raise
    GatewayErrors."""

    dialect: str
    verb: str
    parse: Callable[[bytes], tuple[ModelRef, Request]]
    answer: Callable[[ModelRef, Request, Caller], Awaitable[bytes]]


class Ending(NamedTuple):
    """A call's that failed, as `abort` of its context takes it."""

    code: grpc.StatusCode
    details: str
    trailers: tuple[tuple[str, str], ...]


class Edge:
    """Makes gRPC handlers of methods, and knows which calls are in flight."""

    def __init__(self, gateway: Gateway, arrivals: Arrivals) -> None:
        self._gateway, self._arrivals = gateway, arrivals
        self._running, self._last_begun, self._last_ended = 0, 0.0, 0.0
        self._refusing = False

    def handlers(
        self, service: str, methods: Mapping[str, Method[Any]]
    ) -> "grpc.GenericRpcHandler[bytes, bytes]":
        """The handlers of "/SERVICE/METHOD" for each of `methods`, by name."""
        return grpc.method_handlers_generic_handler(
            service,
            {name: self._handler(f"/{service}/{name}", method) for name, method in methods.items()},
        )

    def refuse(self) -> None:
        """Answer UNAVAILABLE from now on."""
        self._refusing = True

    def nobody_calls(self) -> bool:
        return time.monotonic() - self._last_begun > QUIET_S

    def is_idle(self) -> bool:
        """No call is in flight, and none was a moment ago."""
        return not self._running and time.monotonic() - self._last_ended > QUIET_S

    def _handler(self, path: str, method: Method[Any]) -> "grpc.RpcMethodHandler[bytes, bytes]":
        """As of a method that takes a stream, which on the wire is the same: of any other, grpc.aio
        reads the message, as large as it may be, before it asks anybody whether to."""

        async def handle(_: object, context: Context) -> bytes:
            return await self._answer(path, method, context)

        return grpc.stream_unary_rpc_method_handler(handle)

    async def _answer(self, path: str, method: Method[Any], context: Context) -> bytes:
        headers, gateway = _headers(context), self._gateway
        caller = self._caller(headers, context)
        model, reason, data, reply = ModelRef(""), "", b"", b""
        ending: Ending | None = None
        caller.trace = gateway.tracer.begin("GRPC", path, caller.metadata, caller.began)
        try:
            with self._in_flight():
                is_open = OPERATION_OF[method.verb] is None
                if not (is_open or gateway.lets_in(headers, 0, caller)):
                    await gateway.identify(headers, context.peer(), 0, caller)
            data = await self._message(context, caller)
            with self._in_flight():
                if not caller.account.pay(BYTES, len(data)):
                    await caller.account.spend({BYTES: len(data)})
                model, _ = method.parse(beginning(data))
                gateway.permit(caller, model.name or None, method.verb)
                with gateway.admission.place(
                    model.name, len(data), caller.time_left_s(), caller.account
                ) as arrival:
                    caller.trace.step("admit", caller.began)
                    data = await self._plain(data, method, arrival)
                    began_with, (model, request) = model, method.parse(data)
                    if not model.name or model.name != began_with.name:
                        gateway.permit(caller, model.name, method.verb)
                        arrival.move(model.name)
                    reply = await method.answer(model, request, caller)
        except GatewayError as error:
            ending, reason = ending_of(error), str(error)
        except asyncio.CancelledError:  # the client is gone
            self._observe(path, method, model, "CANCELLED", data, reply, caller, context, "")
            raise
        except Exception as error:  # a bug of ours: the caller gets an answer, the log the trace
            ending, reason = ending_of(error), f"{type(error).__name__}: {error}"
            log.exception("%s failed", path)
        code = "OK" if ending is None else ending.code.name
        self._observe(path, method, model, code, data, reply, caller, context, reason)
        if ending is not None:
            await context.abort(*ending)
        if caller.cache:
            context.set_trailing_metadata(_trailers(told(caller)))
        return reply

    async def _message(self, context: Context, caller: Caller) -> bytes:
        """Raises as `Arrivals.message`. Whoever is sent away is counted, as its request will be."""
        try:
            return await self._arrivals.message(context.read, caller)
        except Busy as error:
            self._gateway.telemetry.refused(type(error).__name__)
            raise

    async def _plain(self, data: bytes, method: Method[Any], arrival: Arrival) -> bytes:
        """What is to be read of a message. Raises PayloadTooLarge, MalformedRequest, Busy."""
        gateway = self._gateway
        if OPERATION_OF[method.verb] != PREDICT:
            return small(data)
        if not is_packed(data):
            return data
        plain = await gateway.predictions.aside(unpack, data, gateway.settings.max_body_bytes)
        arrival.hold(max(len(plain) - len(data), 0))
        return plain

    @contextmanager
    def _in_flight(self) -> Iterator[None]:
        """Around what a drain waits for: all but a message that has yet to come. Raises
        ShuttingDown."""
        self._last_begun = time.monotonic()
        if self._refusing:
            raise ShuttingDown("The gateway is shutting down; call another one")
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            self._last_ended = time.monotonic()

    def _caller(self, headers: Mapping[str, str], context: Context) -> Caller:
        seconds = self._gateway.settings.request_timeout_s
        left_s = context.time_remaining()
        return Caller.of(
            headers,
            time.monotonic(),
            seconds if left_s is None else min(seconds, left_s),
            self._certificate(context),
        )

    def _certificate(self, context: Context) -> bytes:
        """The client's, PEM, which TLS has verified, where it may stand for a key."""
        if not self._gateway.guard.takes_certificates:
            return b""
        return next(iter(context.auth_context().get("x509_pem_cert", ())), b"")

    def _observe(
        self,
        path: str,
        method: Method[Any],
        model: ModelRef,
        code: str,
        data: bytes,
        reply: bytes,
        caller: Caller,
        context: Context,
        reason: str,
    ) -> None:
        known = model.name if self._gateway.predictions.knows(model.name) else ""
        exchange = Exchange(
            dialect=method.dialect,
            verb=method.verb,
            model=known,
            status=code,
            method="GRPC",
            path=path,
            client=caller.at(context.peer()),
            request_id=caller.request_id,
            bytes_in=len(data),
            bytes_out=len(reply),
            seconds=time.monotonic() - caller.began,
            reason=reason,
        )
        self._gateway.telemetry.observe(exchange, caller)


def _headers(context: Context) -> dict[str, str]:
    """The call's metadata, less what is binary."""
    given = context.invocation_metadata() or ()
    return combined([(name, value) for name, value in given if isinstance(value, str)])


def _trailers(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((name.lower(), text) for name, text in headers.items())


def ending_of(error: Exception) -> Ending:
    """What the client is told of an error; one that is no GatewayError is a bug."""
    details, trailers = FAILED, dict[str, str]()
    if isinstance(error, GatewayError):
        words = str(error).encode(errors="replace")[:MAX_DETAILS]
        details, trailers = words.decode(errors="ignore"), headers_of(error)
    return Ending(grpc.StatusCode[grpc_code_of(error)], details, _trailers(trailers))


def read_message(kind: type[AnyMessage], data: bytes) -> AnyMessage:
    """Raises MalformedRequest."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise MalformedRequest(
            f"The message cannot be read as a {kind.DESCRIPTOR.full_name}: {error}"
        ) from error

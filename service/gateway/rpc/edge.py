"""The edge between the dialects' methods and gRPC: bytes in and out, errors to statuses."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from service.gateway.caller import CALLER, Caller
from service.gateway.error_responses import grpc_code_of
from service.gateway.errors import (
    GatewayError,
    MalformedRequest,
    ModelServerUnavailable,
    RequestCancelled,
)
from service.gateway.telemetry import Telemetry, access_log

Method = Callable[[bytes], bytes]
Request = TypeVar("Request", bound=Message)

PASSED_ON = frozenset({"x-request-id", "traceparent", "tracestate"})  # metadata of a caller's own
MAX_DETAILS = 2000  # characters; a client takes 8 kB of trailers, percent-encoded, and no more
QUIET_S = 0.1

log = logging.getLogger(__name__)


class Edge:
    """Makes gRPC handlers of methods, and knows which calls are in flight."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._lock = threading.Lock()
        self._running, self._last_begun, self._last_ended = 0, 0.0, 0.0
        self._refusing = False

    def handlers(
        self, service: str, methods: Mapping[str, Method]
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
        """No call is in flight, and none was a moment ago: one may stand in the threads' queue."""
        return not self._running and time.monotonic() - self._last_ended > QUIET_S

    def _handler(self, path: str, method: Method) -> "grpc.RpcMethodHandler[bytes, bytes]":
        def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
            with self._counted():
                return self._answer(path, method, request, context)

        return grpc.unary_unary_rpc_method_handler(handle)

    def _answer(
        self, path: str, method: Method, request: bytes, context: grpc.ServicerContext
    ) -> bytes:
        began, code, details = time.perf_counter(), "OK", ""
        caller = CALLER.set(RpcCaller(context))
        try:
            if self._refusing:
                raise ModelServerUnavailable("The gateway is shutting down; call another one")
            return method(request)
        except GatewayError as error:
            code, details = grpc_code_of(error), str(error)
        except Exception as error:  # a bug of ours: the caller gets an answer, the log the trace
            code, details = "INTERNAL", f"{type(error).__name__}: {error}"
            log.exception("%s failed", path)
        finally:
            CALLER.reset(caller)
            seconds = time.perf_counter() - began
            self._telemetry.observe("GRPC", path, code, seconds, len(request))
            access_log.info("GRPC %s %s %.1f ms", path, code, seconds * 1e3)
        context.abort(grpc.StatusCode[code], details[:MAX_DETAILS])
        raise AssertionError("abort() raises")

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self._running += 1
            self._last_begun = time.monotonic()
        try:
            with self._telemetry.in_flight.track_inprogress():
                yield
        finally:
            with self._lock:
                self._running -= 1
                self._last_ended = time.monotonic()


class RpcCaller(Caller):
    """The client of a call in progress: its deadline, its metadata, its cancellation."""

    def __init__(self, context: grpc.ServicerContext) -> None:
        self._context = context
        self._passed_on = tuple(
            (key, value) for key, value in context.invocation_metadata() if key in PASSED_ON
        )

    def time_left_s(self, most_s: float) -> float:
        left_s = self._context.time_remaining()
        return most_s if left_s is None else min(most_s, left_s)

    def call(self, method: Callable[..., Any], request: Any, timeout_s: float) -> Any:
        reply = method.future(request, timeout=timeout_s, metadata=self._passed_on)  # type: ignore[attr-defined]
        if not self._context.add_callback(reply.cancel):
            reply.cancel()  # the client is gone already
        try:
            return reply.result()
        except grpc.FutureCancelledError:
            raise RequestCancelled("The client cancelled the call") from None


def parsed(kind: type[Request], method: Callable[[Request], Message]) -> Method:
    """A method of messages as one of bytes. Raises MalformedRequest for bytes that are none."""

    def answer(data: bytes) -> bytes:
        return method(parse(kind, data)).SerializeToString()

    return answer


def parse(kind: type[Request], data: bytes) -> Request:
    """Raises MalformedRequest."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise MalformedRequest(f"The message is no {kind.DESCRIPTOR.full_name}: {error}") from None

"""Calls of gRPC to a service's methods: errors become statuses, those in progress are counted.

Not an interceptor of grpc.aio's: that is given a call's method and metadata, not its request, and
would have to wrap the handler as `_handler` does; and only a handler without a deserializer can
answer bytes that do not parse (grpc.aio's answer is UNKNOWN, with a traceback in the log).
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
import tensorflow as tf
from google.protobuf import message_factory
from google.protobuf.message import DecodeError, Message

from service.modelserver.errors import ServingError, Unavailable, status_of
from sluice.wire.protos import POOL

Context = Any  # grpc.aio.ServicerContext; the stubs leave its abort() untyped
Deadline = float | None  # on the monotonic clock; None: the caller waits for ever
Parser = Callable[[bytes], Any]  # raises DecodeError
RecordCall = Callable[[str, str, grpc.StatusCode, float], None]  # model, method, code, seconds

# How long nobody may have called before the server can end without cutting anybody off, and how
# long it waits for such a time: somebody may call without a pause.
_QUIET_S, _PATIENCE_S = 0.1, 1.0
# Of what a call failed with, bytes, as in TensorFlow Serving: it may quote the request. It goes in
# trailers, of which a client takes 8 kB, percent-encoded; more is RESOURCE_EXHAUSTED to it.
MOST_DETAILS = 1024

log = logging.getLogger(__name__)


class Calls:
    """The calls in progress, on the event loop; once draining, new ones are refused.

    `record` is told of every call when it has been answered.
    """

    def __init__(self, record: RecordCall | None = None) -> None:
        self.record: RecordCall = record or _ignore
        self._running = 0
        self._draining = False
        self._last = time.monotonic()

    def count(self, context: Context) -> None:
        """One call more, until its reply has been sent. Raises Unavailable while draining."""
        self._last = time.monotonic()  # of a refused call too: while there are any, drain() waits
        if self._draining:
            raise Unavailable("The server is shutting down; call another one")
        self._running += 1
        context.add_done_callback(self._done)

    def _done(self, _: Context) -> None:
        self._running -= 1

    async def drain(self, timeout_s: float) -> int:
        """Refuse new calls, and wait until those in progress are done and nobody calls any more.

        Returns how many were still in progress after `timeout_s`. For a time without a call it
        waits _PATIENCE_S at the most.
        """
        # Not grpc.aio's stop(grace): it cancels calls that are on the wire and not yet here.
        self._draining = True
        deadline = time.monotonic() + timeout_s
        while self._running and time.monotonic() < deadline:
            await asyncio.sleep(_QUIET_S / 10)
        deadline = min(deadline, time.monotonic() + _PATIENCE_S)
        while time.monotonic() - self._last < _QUIET_S and time.monotonic() < deadline:
            await asyncio.sleep(_QUIET_S / 10)
        return self._running


def add_service(
    server: grpc.aio.Server,
    name: str,
    servicer: object,
    calls: Calls,
    parsers: Mapping[str, Parser] | None = None,
) -> None:
    """Answer every method of the service `name` with the servicer's coroutine of that name.

    It takes the request and when its caller will have left, and may raise ServingError or what
    TensorFlow raises.
    `parsers`: by method, what makes its request of the bytes, where it is not the message itself.
    """
    handlers = {}
    # From the descriptor, not add_..._to_server: generated code fixes how a request is parsed.
    for method in POOL.FindServiceByName(name).methods:
        parser: Parser = message_factory.GetMessageClass(method.input_type).FromString
        parser = (parsers or {}).get(method.name, parser)
        handlers[method.name] = grpc.unary_unary_rpc_method_handler(
            _handler(getattr(servicer, method.name), method.name, parser, calls),
            response_serializer=message_factory.GetMessageClass(
                method.output_type
            ).SerializeToString,
        )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))


def _handler(
    method: Callable[[Any, Deadline], Awaitable[Message]], name: str, parse: Parser, calls: Calls
) -> Callable[..., Awaitable[Message]]:
    """The request is parsed here: grpc.aio calls bytes that do not parse UNKNOWN, and logs a
    trace for each."""

    async def handle(raw: bytes, context: Context) -> Message:
        started = time.perf_counter()
        # CANCELLED unless something better is known: asyncio's cancellation passes every `except`.
        code, details, model = grpc.StatusCode.CANCELLED, "", ""
        try:
            request = parse(raw)
            model = _model_of(request)
            calls.count(context)
            left_s = context.time_remaining()
            deadline = None if left_s is None else time.monotonic() + left_s
            reply = await method(request, deadline)
            code = grpc.StatusCode.OK
            return reply
        except (ServingError, tf.errors.OpError) as error:
            code, details = status_of(error)
        except DecodeError as error:  # as gRPC's own servers answer it
            code, details = grpc.StatusCode.INTERNAL, str(error)
        except Exception as error:  # a bug of ours: the caller gets an answer, the log the trace
            code, details = grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}"
            log.exception("%s failed", name)
        finally:
            calls.record(model, name, code, time.perf_counter() - started)
        await context.abort(code, _cut(details))
        raise AssertionError("abort() raises")

    return handle


def _model_of(request: Any) -> str:
    tasks = getattr(request, "tasks", ())  # MultiInference names its model in each task
    spec = tasks[0].model_spec if tasks else getattr(request, "model_spec", None)
    return spec.name if spec is not None else ""


def _cut(details: str) -> str:
    data = details.encode(errors="replace")
    more = "...TRUNCATED" if len(data) > MOST_DETAILS else ""
    return data[:MOST_DETAILS].decode(errors="ignore") + more


def _ignore(model: str, method: str, code: grpc.StatusCode, seconds: float) -> None:
    """The record of a server that keeps no figures."""

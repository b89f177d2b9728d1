"""The edge between a service's methods and gRPC: errors become statuses, calls are counted."""
import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

import grpc
import tensorflow as tf

from service.modelserver.errors import ServingError, Unavailable, status_of

Context = Any  # grpc.aio.ServicerContext; the stubs leave its abort() untyped
Record = Callable[[str, str, grpc.StatusCode, float], None]  # model, method, code, seconds

# How long nobody may have called before the server can be stopped without cutting anybody off.
_QUIET_S = 0.1

log = logging.getLogger(__name__)


class Calls:
    """The calls in progress, on the event loop; once draining, new ones are refused.

    `record` is told of every call when it has been answered.
    """

    def __init__(self, record: Record | None = None) -> None:
        self.record: Record = record or _ignore
        self._running = 0
        self._draining = False
        self._last = time.monotonic()

    def begin(self) -> None:
        """Raises Unavailable while draining."""
        self._last = time.monotonic()
        if self._draining:
            raise Unavailable("The server is shutting down; call another one")
        self._running += 1

    def end(self) -> None:
        self._running -= 1

    async def drain(self, timeout_s: float) -> int:
        """Refuse new calls, and wait until those in progress are done and nobody calls any more.

        Returns how many were still in progress after `timeout_s`.
        """
        self._draining = True
        deadline = time.monotonic() + timeout_s
        while (self._running or time.monotonic() - self._last < _QUIET_S) and (
                time.monotonic() < deadline):
            await asyncio.sleep(_QUIET_S / 10)
        return self._running


class Service(Protocol):
    calls: Calls


Reply = TypeVar("Reply")
Method = Callable[[Any, Any, Context], Awaitable[Reply]]


def rpc(method: Method[Reply]) -> Method[Reply]:
    """A method that may raise ServingError or TensorFlow's own errors -> a gRPC handler."""

    @functools.wraps(method)
    async def handler(service: Service, request: Any, context: Context) -> Reply:
        started = time.perf_counter()
        code, details = grpc.StatusCode.CANCELLED, ""
        try:
            reply = await _count(service.calls, method(service, request, context))
            code = grpc.StatusCode.OK
            return reply
        except (ServingError, tf.errors.OpError) as error:
            code, details = status_of(error)
        except Exception as error:  # a bug of ours: the caller gets an answer, the log the trace
            code, details = grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}"
            log.exception("%s failed", method.__name__)
        finally:
            seconds = time.perf_counter() - started
            service.calls.record(_model_of(request), method.__name__, code, seconds)
        await context.abort(code, details)
        raise AssertionError("abort() raises")

    return handler


async def _count(calls: Calls, answer: Awaitable[Reply]) -> Reply:
    calls.begin()
    try:
        return await answer
    finally:
        calls.end()


def _model_of(request: Any) -> str:
    tasks = getattr(request, "tasks", ())
    spec = tasks[0].model_spec if tasks else getattr(request, "model_spec", None)
    return spec.name if spec is not None else ""


def _ignore(model: str, method: str, code: grpc.StatusCode, seconds: float) -> None:
    """The record of a server that keeps no figures."""

"""The edge between a service's methods and gRPC: errors become statuses, calls are counted."""
import functools
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

import grpc
import tensorflow as tf

from service.modelserver.errors import ServingError, status_of

Context = Any  # grpc.aio.ServicerContext; the stubs leave its abort() untyped

log = logging.getLogger(__name__)


class Recorder(Protocol):
    """Told of every call once it has been answered."""

    def __call__(self, model: str, method: str, code: grpc.StatusCode, seconds: float) -> None: ...


class Service(Protocol):
    record: Recorder


Reply = TypeVar("Reply")
Method = Callable[[Any, Any, Context], Awaitable[Reply]]


def ignore_call(model: str, method: str, code: grpc.StatusCode, seconds: float) -> None:
    """The recorder of a server that keeps no figures."""


def rpc(method: Method[Reply]) -> Method[Reply]:
    """A method that may raise ServingError or TensorFlow's own errors -> a gRPC handler."""

    @functools.wraps(method)
    async def handler(service: Service, request: Any, context: Context) -> Reply:
        started = time.perf_counter()
        code, details = grpc.StatusCode.CANCELLED, ""
        try:
            reply = await method(service, request, context)
            code = grpc.StatusCode.OK
            return reply
        except (ServingError, tf.errors.OpError) as error:
            code, details = status_of(error)
        except Exception as error:  # a bug of ours: the caller gets an answer, the log the trace
            code, details = grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}"
            log.exception("%s failed", method.__name__)
        finally:
            service.record(_model_of(request), method.__name__, code,
                           time.perf_counter() - started)
        await context.abort(code, details)
        raise AssertionError("abort() raises")

    return handler


def _model_of(request: Any) -> str:
    spec = getattr(request, "model_spec", None)
    return spec.name if spec is not None else ""

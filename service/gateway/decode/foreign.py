"""What a library raises for hostile bytes ends at the decoder that called it.

simdjson, numpy, Pillow, zipfile and the others raise what they like for bytes that lie, and no
list of it stays complete. Each decoder has one door, and behind it a client's bytes are at worst a
MalformedRequest. A cause that is known gets a sentence of its own where it arises; what the door
has to catch goes to the log with its traceback, since it can be a fault of ours as well.
"""

import logging
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from service.gateway.errors import GatewayError, MalformedRequest, shown

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

log = logging.getLogger(__name__)


def door(what: str) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """A decorator for the decoder of `what`, such as "the .npy file"."""

    def decorate(decode: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        @wraps(decode)
        def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            try:
                return decode(*args, **kwargs)
            except GatewayError:
                raise
            except Exception as error:
                log.warning("%s: %s", decode.__name__, type(error).__name__, exc_info=error)
                raise MalformedRequest(f"{what} cannot be read: {_reason(error)}") from error

        return guarded

    return decorate


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "it takes more memory than there is; send less in one request"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return f"{type(error).__name__}: {shown(str(error))}" if str(error) else type(error).__name__

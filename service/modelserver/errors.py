"""What a call can fail with, as TensorFlow Serving tells it: a gRPC code and a sentence.

ServingError
├── InvalidArgument       the request contradicts the model, or itself
├── NotFound              no such model or version
├── FailedPrecondition    no such signature; a label on a version that is not available
├── PermissionDenied      the server was told not to do this, or not for callers
├── DataLoss              a version's files are not whole
├── Unavailable           the batching queue is full, or the server is shutting down
├── Unimplemented         TensorFlow Serving has not got it either
└── Unknown               anything else; the text is all there is

StartError                the server cannot begin: no call is there to be told
"""

import re
from typing import ClassVar

import grpc
import tensorflow as tf

from sluice.wire.reasons import plain_reason

# oneDNN's dnnl_invalid_arguments and dnnl_unimplemented: sizes that an op cannot take. TensorFlow
# calls every exception of oneDNN's ABORTED, which tells a caller to try again.
_ONEDNN_REFUSAL = re.compile(r"Operation received an exception:\s*Status: [23],")

_CODES = {code.value[0]: code for code in grpc.StatusCode}


class ServingError(Exception):
    """The base: `code` is the gRPC status of the reply, `str()` its details."""

    code: ClassVar[grpc.StatusCode]


class InvalidArgument(ServingError):
    code = grpc.StatusCode.INVALID_ARGUMENT


class NotFound(ServingError):
    code = grpc.StatusCode.NOT_FOUND


class FailedPrecondition(ServingError):
    code = grpc.StatusCode.FAILED_PRECONDITION


class PermissionDenied(ServingError):
    code = grpc.StatusCode.PERMISSION_DENIED


class DataLoss(ServingError):
    code = grpc.StatusCode.DATA_LOSS


class Unavailable(ServingError):
    code = grpc.StatusCode.UNAVAILABLE


class Unimplemented(ServingError):
    code = grpc.StatusCode.UNIMPLEMENTED


class Unknown(ServingError):
    code = grpc.StatusCode.UNKNOWN


class StartError(Exception):
    """The server cannot begin: a port that is taken, a file that cannot be read or followed."""


def status_of(error: BaseException) -> tuple[grpc.StatusCode, str]:
    """The gRPC code and text for anything raised while a model loads or runs."""
    if isinstance(error, ServingError):
        return error.code, str(error)
    if isinstance(error, tf.errors.AbortedError) and _ONEDNN_REFUSAL.match(error.message):
        return grpc.StatusCode.INVALID_ARGUMENT, plain_reason(error.message)
    if isinstance(error, tf.errors.OpError):  # TensorFlow's codes are gRPC's numbers
        code = _CODES.get(error.error_code, grpc.StatusCode.UNKNOWN)
        return code, plain_reason(error.message)
    if isinstance(error, FileNotFoundError):
        return grpc.StatusCode.NOT_FOUND, str(error)
    return grpc.StatusCode.UNKNOWN, f"{type(error).__name__}: {error}"

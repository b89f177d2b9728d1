"""Errors to responses: one table of statuses, and one renderer for each dialect."""
import json

from service.gateway import errors

# The status of an error is that of the nearest class above it that stands here.
STATUS: dict[type[errors.GatewayError], int] = {
    errors.RequestError: 400,
    errors.NotFound: 404,
    errors.NotAcceptable: 406,
    errors.PayloadTooLarge: 413,
    errors.InputTooLarge: 413,
    errors.UnsupportedMediaType: 415,
    errors.ModelServerOverloaded: 429,
    errors.RequestCancelled: 499,
    errors.ModelServerFailed: 500,
    errors.NotImplementedByServer: 501,
    errors.ModelServerUnavailable: 503,
    errors.DeadlineExceeded: 504,
}


def status_of(error: errors.GatewayError) -> int:
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def tfs_body(message: str) -> bytes:
    """TensorFlow Serving's error document."""
    return json.dumps({"error": message}, ensure_ascii=False).encode("utf-8", "replace")

"""Errors to responses: one table of statuses, and one renderer for each dialect."""

import json

from service.gateway import errors
from service.gateway.http import HttpResponse

RETRY_AFTER_S = 1  # of a model server that is starting, stopping or full

# The status of an error is that of the nearest class above it that stands here.
STATUS: dict[type[errors.GatewayError], int] = {
    errors.RequestError: 400,
    errors.NotFound: 404,
    errors.NotAcceptable: 406,
    errors.BodyTimeout: 408,
    errors.PayloadTooLarge: 413,
    errors.InputTooLarge: 413,
    errors.UnsupportedMediaType: 415,
    errors.ModelServerOverloaded: 429,
    errors.ModelServerFailed: 500,
    errors.NotImplementedByServer: 501,
    errors.Busy: 503,
    errors.ModelServerUnavailable: 503,
    errors.DeadlineExceeded: 504,
}

# The same for gRPC, by the names of grpc.StatusCode. A signature that is missing is TensorFlow
# Serving's FAILED_PRECONDITION (row "predict, missing signature"); a message over the limit is
# gRPC's own RESOURCE_EXHAUSTED.
GRPC_CODE: dict[type[errors.GatewayError], str] = {
    errors.RequestError: "INVALID_ARGUMENT",
    errors.UnknownSignature: "FAILED_PRECONDITION",
    errors.BodyTimeout: "DEADLINE_EXCEEDED",
    errors.PayloadTooLarge: "RESOURCE_EXHAUSTED",
    errors.NotFound: "NOT_FOUND",
    errors.ModelServerOverloaded: "RESOURCE_EXHAUSTED",
    errors.ModelServerFailed: "INTERNAL",
    errors.NotImplementedByServer: "UNIMPLEMENTED",
    errors.Busy: "UNAVAILABLE",
    errors.ModelServerUnavailable: "UNAVAILABLE",
    errors.DeadlineExceeded: "DEADLINE_EXCEEDED",
}


def status_of(error: errors.GatewayError) -> int:
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def grpc_code_of(error: errors.GatewayError) -> str:
    return next(GRPC_CODE[kind] for kind in type(error).__mro__ if kind in GRPC_CODE)


def error_response(error: Exception) -> HttpResponse:
    """Over HTTP, every dialect's error document is TensorFlow Serving's; what is no GatewayError
    is a bug, of which the client learns no more than that."""
    if not isinstance(error, errors.GatewayError):
        return HttpResponse(error_body("The gateway failed; its log says how"), 500)
    status = status_of(error)
    if isinstance(error, errors.Busy):
        again = error.retry_after_s
    elif status in (429, 503):
        again = RETRY_AFTER_S
    else:
        return HttpResponse(error_body(str(error)), status)
    return HttpResponse(error_body(str(error)), status, headers={"Retry-After": str(again)})


def error_body(message: str) -> bytes:
    """`{"error": "..."}`"""
    return json.dumps({"error": message}, ensure_ascii=False).encode("utf-8", "replace")

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

# The same for gRPC, by the names of grpc.StatusCode. A signature that is missing is TensorFlow
# Serving's FAILED_PRECONDITION (row "predict, missing signature"); a message over the limit is
# gRPC's own RESOURCE_EXHAUSTED.
GRPC_CODE: dict[type[errors.GatewayError], str] = {
    errors.RequestError: "INVALID_ARGUMENT",
    errors.UnknownSignature: "FAILED_PRECONDITION",
    errors.PayloadTooLarge: "RESOURCE_EXHAUSTED",
    errors.NotFound: "NOT_FOUND",
    errors.ModelServerOverloaded: "RESOURCE_EXHAUSTED",
    errors.RequestCancelled: "CANCELLED",
    errors.ModelServerFailed: "INTERNAL",
    errors.NotImplementedByServer: "UNIMPLEMENTED",
    errors.ModelServerUnavailable: "UNAVAILABLE",
    errors.DeadlineExceeded: "DEADLINE_EXCEEDED",
}


def status_of(error: errors.GatewayError) -> int:
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def grpc_code_of(error: errors.GatewayError) -> str:
    return next(GRPC_CODE[kind] for kind in type(error).__mro__ if kind in GRPC_CODE)


def tfs_body(message: str) -> bytes:
    """TensorFlow Serving's error document."""
    return json.dumps({"error": message}, ensure_ascii=False).encode("utf-8", "replace")

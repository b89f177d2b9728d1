"""Errors to responses: one table of statuses, and one renderer for each dialect."""

import json
from collections.abc import Sequence
from functools import lru_cache

from service.gateway import errors
from service.gateway.access.account import Standing
from service.gateway.access.limits import BYTES
from service.gateway.http import HttpResponse

# Of a bug the client learns no more than this: an exception's own words may tell of the machine.
FAILED = "The gateway failed; its log says how"
RETRY_AFTER_S = 1  # of a model server that is starting, stopping or full

# The status of an error is that of the nearest class above it that stands here.
STATUS: dict[type[errors.GatewayError], int] = {
    errors.RequestError: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.NotAcceptable: 406,
    errors.BodyTimeout: 408,
    errors.PayloadTooLarge: 413,
    errors.InputTooLarge: 413,
    errors.UnsupportedMediaType: 415,
    errors.RateLimited: 429,
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
    errors.Unauthenticated: "UNAUTHENTICATED",
    errors.Forbidden: "PERMISSION_DENIED",
    errors.NotFound: "NOT_FOUND",
    errors.RateLimited: "RESOURCE_EXHAUSTED",
    errors.ModelServerOverloaded: "RESOURCE_EXHAUSTED",
    errors.ModelServerFailed: "INTERNAL",
    errors.NotImplementedByServer: "UNIMPLEMENTED",
    errors.Busy: "UNAVAILABLE",
    errors.ModelServerUnavailable: "UNAVAILABLE",
    errors.DeadlineExceeded: "DEADLINE_EXCEEDED",
}


def status_of(error: errors.GatewayError) -> int:
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def grpc_code_of(error: Exception) -> str:
    """INTERNAL for what is no GatewayError."""
    kinds = type(error).__mro__
    return next((GRPC_CODE[kind] for kind in kinds if kind in GRPC_CODE), "INTERNAL")


def error_response(error: Exception) -> HttpResponse:
    """Over HTTP, every dialect's error document is TensorFlow Serving's; what is no GatewayError
    is a bug."""
    if not isinstance(error, errors.GatewayError):
        return HttpResponse(error_body(FAILED), 500)
    return HttpResponse(error_body(str(error)), status_of(error), headers=headers_of(error))


def headers_of(error: errors.GatewayError) -> dict[str, str]:
    """What goes with an error beside its message: HTTP's headers, and gRPC's trailing metadata."""
    if isinstance(error, errors.Unauthenticated):
        # RFC 6750, 3: who has shown nothing is not told of an error.
        invalid = ', error="invalid_token"' if error.was_shown else ""
        return {"WWW-Authenticate": f'Bearer realm="sluice"{invalid}'}
    if isinstance(error, errors.RateLimited):
        return {"Retry-After": str(error.retry_after_s), **limit_headers(error.standings)}
    if isinstance(error, errors.Busy):
        return {"Retry-After": str(error.retry_after_s)}
    if status_of(error) in (429, 503):
        return {"Retry-After": str(RETRY_AFTER_S)}
    return {}


def limit_headers(standings: Sequence[Standing]) -> dict[str, str]:
    """The limits of a caller and what is left of them, as draft-ietf-httpapi-ratelimit-headers-10
    writes it.

    >>> limit_headers([Standing("requests", 20, 2, left=7, reset_s=1)])["RateLimit"]
    '"requests";r=7;t=1'
    """
    if not standings:
        return {}
    policies = _policies(tuple((each.kind, each.quota, each.window_s) for each in standings))
    left = [f'"{each.kind}";r={each.left};t={each.reset_s}' for each in standings]
    return {"RateLimit-Policy": policies, "RateLimit": ", ".join(left)}


@lru_cache(1024)
def _policies(quotas: tuple[tuple[str, int, int], ...]) -> str:
    units = {BYTES: ';qu="content-bytes"'}
    return ", ".join(
        f'"{kind}";q={quota};w={window_s}{units.get(kind, "")}' for kind, quota, window_s in quotas
    )


def error_body(message: str) -> bytes:
    """`{"error": "..."}`"""
    return json.dumps({"error": message}, ensure_ascii=False).encode("utf-8", "replace")

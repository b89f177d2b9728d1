"""Which other sites' pages may ask, by what a browser is told (CORS: https://fetch.spec.whatwg.org)."""

from collections.abc import Iterable, Mapping

from service.gateway.http import HttpResponse

# What a page may send, and read of an answer, beyond what any page may.
_SENT = (
    "Accept, Authorization, Cache-Control, Content-Encoding, Content-Type, "
    "Inference-Header-Content-Length, X-API-Key, X-Request-Id, X-Request-Timeout-Ms, "
    "X-Sluice-Timing, X-Sluice-Version, traceparent, tracestate"
)
_READ = (
    "Age, Cache-Status, Inference-Header-Content-Length, RateLimit, RateLimit-Policy, Retry-After, "
    "Server-Timing, WWW-Authenticate, X-Request-Id, X-Sluice-Version"
)
_REMEMBERED_S = "600"


class Cors:
    """`origins` is SCHEME://HOST[:PORT], several separated by commas.

    Cookies are no page's to send: callers from other sites show their key in a header.
    """

    def __init__(self, origins: str) -> None:
        self._origins = frozenset(filter(None, (each.strip() for each in origins.split(","))))

    def headers(self, origin: str | None) -> dict[str, str]:
        """What each answer says to the page of `origin` that asked."""
        if not self._origins:
            return {}
        if origin not in self._origins:
            return {"Vary": "Origin"}
        return {
            "Vary": "Origin",
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Expose-Headers": _READ,
        }

    def dressed(self, response: HttpResponse, request_headers: Mapping[str, str]) -> HttpResponse:
        """The response with `headers`; those of the request are by lower-case name."""
        said = self.headers(request_headers.get("origin"))
        return response._replace(headers={**response.headers, **said}) if said else response

    def preflight(self, origin: str | None, methods: Iterable[str]) -> dict[str, str]:
        """What the answer says to a browser that asks first; nothing to other sites' pages.
        `methods` are what the path takes."""
        if origin not in self._origins:
            return {}
        return {
            "Access-Control-Allow-Methods": ", ".join(sorted(methods)),
            "Access-Control-Allow-Headers": _SENT,
            "Access-Control-Max-Age": _REMEMBERED_S,
        }

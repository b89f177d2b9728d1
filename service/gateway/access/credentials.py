"""Where a caller shows its key: HTTP's headers and gRPC's metadata alike."""

from collections.abc import Mapping

from werkzeug.http import parse_cookie

BEARER = "bearer "
COOKIE = "sluice_key"  # which the page sets, for pictures that a browser asks for by itself


def credential_of(headers: Mapping[str, str]) -> str:
    """The key in headers by lower-case name; "" where there is none. Of several ways the first
    counts: `Authorization: Bearer`, `X-API-Key`, the page's cookie. Other schemes of Authorization
    are a proxy's."""
    authorization = headers.get("authorization")
    if authorization and authorization[: len(BEARER)].lower() == BEARER:
        return authorization[len(BEARER) :].strip()
    key = headers.get("x-api-key")
    if key:
        return key.strip()
    return parse_cookie(headers["cookie"]).get(COOKIE, "") if "cookie" in headers else ""

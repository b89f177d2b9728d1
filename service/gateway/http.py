"""A request and a response of HTTP, as the routes see them: whole, in memory, of no server's kind.

The event loop's front makes them of what it reads, Flask's views of Flask's, and the routes that
answer both are plain coroutines.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qsl

from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header, parse_options_header

JSON = "application/json"


class HttpRequest(NamedTuple):
    """`path` is percent-decoded, `headers` have lower-case names, `body` is as it was sent, less
    its Content-Encoding. `certificate` is the client's, PEM, as TLS has verified it; b"" for none.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    certificate: bytes = b""

    @property
    def length(self) -> int:
        """Of the body, as announced; 0 where it is not. The server has refused what is none."""
        return int(self.headers.get("content-length") or 0)

    @property
    def content_type(self) -> str:
        """Without its parameters, lower-case."""
        return _media_type(self.headers.get("content-type", ""))

    @property
    def arguments(self) -> dict[str, str]:
        """What stands behind the `?`; of equal names the first counts."""
        if not self.query:
            return {}
        pairs = parse_qsl(self.query, keep_blank_values=True)
        return dict(reversed(pairs))

    def best_of(self, kinds: tuple[str, ...]) -> str:
        """Of these media types the one that the client accepts best; the first if none."""
        accept = self.headers.get("accept")
        return kinds[0] if accept in (None, "*/*", kinds[0]) else _best(accept, kinds)


class HttpResponse(NamedTuple):
    """The headers beside Content-Type and Content-Length."""

    body: bytes
    status: int = 200
    content_type: str = JSON
    headers: Mapping[str, str] = {}


@lru_cache(256)
def _media_type(header: str) -> str:
    return parse_options_header(header)[0].lower()


@lru_cache(256)
def _best(accept: str | None, kinds: tuple[str, ...]) -> str:
    accepted = parse_accept_header(accept or "", MIMEAccept)
    return accepted.best_match(kinds, kinds[0]) or kinds[0]


class ClientGone(Exception):
    """The connection was closed before the request was whole: there is nobody to answer."""

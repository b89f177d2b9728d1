"""The bytes of a request: whole, unpacked, and never more than the limit.

Werkzeug's `request.get_data()` cuts a chunked body at the limit and says nothing; reading the
stream ourselves finds it out.
"""

from collections.abc import Iterator

from flask import Request

from service.gateway.decode.content_encoding import IDENTITY, inflate
from service.gateway.errors import PayloadTooLarge

_CHUNK_BYTES = 1 << 20


def read_body(request: Request, limit_bytes: int) -> bytes:
    """The body, with a gzip or deflate Content-Encoding undone. Raises as `inflate` does."""
    if request.content_length is not None and request.content_length > limit_bytes:
        raise PayloadTooLarge(limit_bytes)
    encoding = request.headers.get("Content-Encoding", IDENTITY)
    return b"".join(inflate(_chunks(request), encoding, limit_bytes))


def _chunks(request: Request) -> Iterator[bytes]:
    stream = request.environ["wsgi.input"] if _is_chunked(request) else request.stream
    while chunk := stream.read(_CHUNK_BYTES):
        yield chunk


def _is_chunked(request: Request) -> bool:
    return request.content_length is None and "wsgi.input_terminated" in request.environ

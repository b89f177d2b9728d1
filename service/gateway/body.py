"""The bytes of a request: whole, unpacked, and never more than the limit."""

from collections.abc import Iterator, Mapping
from typing import IO

from service.gateway.decode.content_encoding import decompress
from service.gateway.errors import PayloadTooLarge
from service.gateway.settings import Settings

CHUNK_BYTES = 1 << 20
ENCODING = "content-encoding"


def read_stream(
    stream: IO[bytes], length: int | None, headers: Mapping[str, str], settings: Settings
) -> bytes:
    """A WSGI request's body, its Content-Encoding undone. Raises PayloadTooLarge.

    Werkzeug's `request.get_data()` cuts a chunked body at the limit and says nothing; reading the
    stream ourselves finds it out.
    """
    limit = settings.max_body_bytes
    if length is not None and length > limit:
        raise PayloadTooLarge(limit)
    body = _joined(iter(lambda: stream.read(CHUNK_BYTES), b""), limit)
    return unpacked(body, headers, settings)


def unpacked(body: bytes, headers: Mapping[str, str], settings: Settings) -> bytes:
    """`body` with a gzip or deflate Content-Encoding undone. Raises MalformedRequest."""
    encoding = headers.get(ENCODING)
    return decompress(body, encoding, settings.max_body_bytes) if encoding else body


def _joined(chunks: Iterator[bytes], limit_bytes: int) -> bytes:
    parts, size = [], 0
    for chunk in chunks:
        size += len(chunk)
        if size > limit_bytes:
            raise PayloadTooLarge(limit_bytes)
        parts.append(chunk)
    return b"".join(parts)

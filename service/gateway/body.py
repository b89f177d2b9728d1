"""The bytes of a request: whole, unpacked, and never more than the limit.

Werkzeug's `request.get_data()` cuts a chunked body at the limit and says nothing; reading the
stream ourselves finds it out.
"""

import zlib
from collections.abc import Iterator

from flask import Request

from service.gateway.errors import MalformedRequest, PayloadTooLarge, UnsupportedMediaType

_CHUNK_BYTES = 1 << 20


def read_body(request: Request, limit_bytes: int) -> bytes:
    """The body, with a gzip or deflate Content-Encoding undone. Raises PayloadTooLarge."""
    if request.content_length is not None and request.content_length > limit_bytes:
        raise PayloadTooLarge(limit_bytes)
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    chunks = _chunks(request)
    if encoding in ("gzip", "x-gzip", "deflate"):
        chunks = _inflate(chunks)
    elif encoding != "identity":
        raise UnsupportedMediaType(f'Content-Encoding "{encoding}" is not read; use gzip or none')
    return _join(chunks, limit_bytes)


def _chunks(request: Request) -> Iterator[bytes]:
    stream = request.environ["wsgi.input"] if _is_chunked(request) else request.stream
    while chunk := stream.read(_CHUNK_BYTES):
        yield chunk


def _is_chunked(request: Request) -> bool:
    return request.content_length is None and "wsgi.input_terminated" in request.environ


def _inflate(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Unpacked pieces of bounded size, so that a small body cannot unpack to all of memory."""
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # gzip or zlib, by its header
    try:
        for chunk in chunks:
            while chunk and not unpacker.eof:
                yield unpacker.decompress(chunk, _CHUNK_BYTES)
                chunk = unpacker.unconsumed_tail
    except zlib.error as error:
        raise MalformedRequest(f"The body is not what its Content-Encoding says: {error}") from None
    if not unpacker.eof:
        raise MalformedRequest("The compressed body ends too early")


def _join(chunks: Iterator[bytes], limit_bytes: int) -> bytes:
    parts, size = [], 0
    for chunk in chunks:
        size += len(chunk)
        if size > limit_bytes:
            raise PayloadTooLarge(limit_bytes)
        parts.append(chunk)
    return b"".join(parts)

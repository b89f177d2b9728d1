"""The bytes of a request that a WSGI server hands over: whole, and never more than the limit."""

from typing import IO

from service.gateway.errors import PayloadTooLarge

_CHUNK_BYTES = 1 << 20


def read_stream(stream: IO[bytes], length: int | None, limit_bytes: int) -> bytes:
    """All of a body of the announced length, if one was. Raises PayloadTooLarge.

    Werkzeug's `request.get_data()` cuts a chunked body at the limit and says nothing; reading the
    stream ourselves finds it out.
    """
    if length is not None and length > limit_bytes:
        raise PayloadTooLarge(limit_bytes)
    chunks, size = [], 0
    while chunk := stream.read(_CHUNK_BYTES):
        size += len(chunk)
        if size > limit_bytes:
            raise PayloadTooLarge(limit_bytes)
        chunks.append(chunk)
    return b"".join(chunks)

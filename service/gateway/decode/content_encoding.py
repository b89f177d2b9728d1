"""A body's Content-Encoding undone: gzip or deflate, in pieces of bounded size."""

import zlib
from collections.abc import Iterable, Iterator

from service.gateway.errors import (
    MalformedRequest,
    PayloadTooLarge,
    UnsupportedMediaType,
    shown,
)

IDENTITY = "identity"
_WINDOW_BITS = {
    "gzip": 16 + zlib.MAX_WBITS,
    "x-gzip": 16 + zlib.MAX_WBITS,
    "deflate": zlib.MAX_WBITS,  # in zlib's format, as RFC 9110 has it
}
_PIECE_BYTES = 1 << 20
_SLICE_BYTES = 1 << 16  # what zlib has not yet read is copied for every piece that it gives

# deflate packs at most 1,032 to 1. Of JSON, photographs give 2 to 3 to 1, uint8 pixels of which one
# in a hundred is not zero 150, all zeros 300 to 410: so black pictures, which tests and benchmarks
# send, pass as long as they are few, and beyond that what a body may become is known by what came.
FREE_BYTES = 8 << 20
MAX_RATIO = 200


def decompress(body: bytes, encoding: str, limit_bytes: int) -> bytes:
    """The whole body at once; see `inflate`."""
    return b"".join(inflate([body], encoding, limit_bytes))


def inflate(chunks: Iterable[bytes], encoding: str, limit_bytes: int) -> Iterator[bytes]:
    """The body in pieces, `encoding` (the header's value) undone.

    Raises UnsupportedMediaType for an encoding that is not read; PayloadTooLarge as soon as there
    are more than `limit_bytes`; MalformedRequest for what is no such encoding, for anything behind
    its end (a second gzip member is one), and beyond FREE_BYTES for more than MAX_RATIO times what
    was sent.
    """
    name = encoding.strip().lower()
    if name == IDENTITY:
        pieces: Iterable[bytes] = chunks
    elif name in _WINDOW_BITS:
        pieces = _unpacked(chunks, name)
    else:
        raise UnsupportedMediaType(
            f'Content-Encoding "{shown(encoding)}" is not read; use gzip, deflate or none'
        )
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > limit_bytes:
            raise PayloadTooLarge(limit_bytes)
        yield piece


def _unpacked(chunks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    unpacker = zlib.decompressobj(_WINDOW_BITS[encoding])
    read = size = 0
    try:
        for chunk in _slices(chunks):
            read += len(chunk)
            if unpacker.eof:
                raise MalformedRequest(
                    f"The body goes on behind the end of its {encoding}; send all of it as one"
                )
            rest: bytes | memoryview = chunk
            while rest and not unpacker.eof:
                piece = unpacker.decompress(rest, _PIECE_BYTES)
                size += len(piece)
                if size > max(FREE_BYTES, MAX_RATIO * read):
                    raise MalformedRequest(
                        f"The body unpacks to more than {FREE_BYTES} bytes and more than "
                        f"{MAX_RATIO} times what was sent; send it without packing it"
                    )
                yield piece
                rest = unpacker.unconsumed_tail
            if unpacker.unused_data:
                raise MalformedRequest(
                    f"The body goes on behind the end of its {encoding}; send all of it as one"
                )
    except zlib.error as error:
        raise MalformedRequest(
            f"The body is not the {encoding} that it is said to be: {error}"
        ) from error
    if not unpacker.eof:
        raise MalformedRequest(f"The body's {encoding} ends too early; send it whole")


def _slices(chunks: Iterable[bytes]) -> Iterator[memoryview]:
    for chunk in chunks:
        view = memoryview(chunk)
        for start in range(0, len(view), _SLICE_BYTES):
            yield view[start : start + _SLICE_BYTES]

"""What a WebP file says of itself in its first 30 bytes, without the memory that a decoder takes.

libwebp's animation decoder, which Pillow opens every file with, makes room for the whole picture.
"""

from typing import NamedTuple


class WebpHeader(NamedTuple):
    width: int
    height: int
    animated: bool


def webp_header(data: bytes) -> WebpHeader | None:
    """None for what is no WebP file.

    https://developers.google.com/speed/webp/docs/riff_container

    >>> webp_header(b"GIF89a") is None
    True
    """
    kind = data[12:16]
    if not (data.startswith(b"RIFF") and data[8:12] == b"WEBP") or len(data) < 30:
        return None
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
        return WebpHeader(width, height, bool(data[20] & 2))
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return WebpHeader(1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), False)
    if kind == b"VP8 ":
        width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
        return WebpHeader(width, height, False)
    return None

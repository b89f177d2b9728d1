"""Arrays as PNG files. By zlib, as the client brings no Pillow: a PNG of 8 bits is three chunks,
and the client's other ways with pictures pass their files on unread."""

import struct
import zlib
from base64 import b64encode

import numpy as np

from sluice.wire.tensors import Array

_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by channels: grey, with alpha, RGB, RGBA


def encode_png(pixels: Array) -> bytes:
    """uint8 [H, W, C] as a PNG file; C is 1, 3 or 4, or 2 for grey with alpha.

    https://www.w3.org/TR/png-3/
    """
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    lines = np.zeros((height, 1 + width * channels), np.uint8)  # each begins with its filter: none
    lines[:, 1:] = pixels.reshape(height, -1)
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(lines.tobytes()), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*each) for each in chunks.items())


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def png_url(pixels: Array) -> str:
    """uint8 [H, W, C] as a `data:` URL, for the `src` of an `<img>`."""
    return data_url(encode_png(pixels), "png")


def data_url(file: bytes, kind: str) -> str:
    """
    >>> data_url(b"GIF89a", "gif")
    'data:image/gif;base64,R0lGODlh'
    """
    return f"data:image/{kind};base64,{b64encode(file).decode()}"

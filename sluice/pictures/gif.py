"""The first frame of a GIF, by the file's blocks, without decoding any.

A decoder unpacks every frame to get to the file's end: 2.2 MB of 60 frames of 7000 x 7000 took a
model server 2.9 GB, for the first of them alone. And none tells a transparent pixel from a black
one once it has drawn them.
"""

import struct
from typing import NamedTuple

_IMAGE, _EXTENSION, _CONTROL = 0x2C, 0x21, 0xF9
_TABLE, _TABLE_SIZE = 0x80, 0x07  # of a packed byte: a table of colours follows, and its size
MAX_BLOCKS = 1 << 18  # of up to 255 bytes each; a GIF of 64 MiB has as many


class Still(NamedTuple):
    """A GIF of one frame that fills it, its transparent colour white; and its place on a screen of
    `size`, width and height, at `left` and `top`."""

    file: bytes
    size: tuple[int, int]
    left: int
    top: int


def first_frame(data: bytes) -> Still | None:
    """None for a file that breaks off before its first frame is whole.

    >>> first_frame(b"GIF89a") is None
    True
    """
    start, clear = _first_image(data)
    end = _behind_blocks(data, start + 11 + table_bytes(data, start + 9))
    if data[start : start + 1] != bytes([_IMAGE]) or end > len(data):
        return None
    left, top, width, height = struct.unpack_from("<HHHH", data, start + 1)
    screen = struct.unpack_from("<HH", data, 6)
    size = max(screen[0], left + width), max(screen[1], top + height)
    shared = 13 + table_bytes(data, 10)
    still = bytearray(data[:shared] + data[start:end] + b";")
    still[6:10] = still[shared + 5 : shared + 9]  # the screen is as large as the frame
    still[shared + 1 : shared + 5] = bytes(4)  # and begins where it does
    own = table_bytes(data, start + 9)
    if 0 <= clear < (own or table_bytes(data, 10)) // 3:
        colour = (shared + 10 if own else 13) + 3 * clear
        still[colour : colour + 3] = b"\xff\xff\xff"
    return Still(bytes(still), size, left, top)


def _first_image(data: bytes) -> tuple[int, int]:
    """Where the first frame begins, or what is no frame; and the number of its transparent colour,
    -1 for none."""
    at, clear = 13 + table_bytes(data, 10), -1
    while data[at : at + 1] == bytes([_EXTENSION]):
        if data[at + 1 : at + 2] == bytes([_CONTROL]) and at + 6 < len(data):
            clear = data[at + 6] if data[at + 3] & 1 else -1
        at = _behind_blocks(data, at + 2)
    return at, clear


def pixels_of_frames(data: bytes) -> int | None:
    """The pixels of all frames, as far as the file can be followed; None if it takes more than
    MAX_BLOCKS blocks to follow it.

    >>> frame = b"," + struct.pack("<HHHHB", 0, 0, 3, 2, 0) + bytes(2)
    >>> pixels_of_frames(b"GIF89a" + struct.pack("<HHBBB", 3, 2, 0, 0, 0) + frame + frame)
    12
    """
    pixels, start, blocks = 0, 13 + table_bytes(data, 10), 0
    while start < len(data) and blocks <= MAX_BLOCKS:
        if data[start] == _IMAGE:
            width, height = data[start + 5 : start + 7], data[start + 7 : start + 9]
            pixels += int.from_bytes(width, "little") * int.from_bytes(height, "little")
            start += 11 + table_bytes(data, start + 9)
        elif data[start] == _EXTENSION:
            start += 2
        else:
            break
        while start < len(data) and (size := data[start]) and blocks <= MAX_BLOCKS:
            start += 1 + size
            blocks += 1
        start, blocks = start + 1, blocks + 1
    return pixels if blocks <= MAX_BLOCKS else None


def table_bytes(data: bytes, at: int) -> int:
    """The length of the colours that the packed byte at `at` announces."""
    packed = data[at] if at < len(data) else 0
    return 3 << (packed & _TABLE_SIZE) + 1 if packed & _TABLE else 0


def _behind_blocks(data: bytes, at: int) -> int:
    """Behind the sub-blocks that begin at `at`; behind the file, where they do not end in it."""
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return at + 1

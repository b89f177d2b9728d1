"""How many pixels the frames of a GIF have, by its blocks, without decoding any.

Pillow tells the size of the first frame, and a decoder unpacks every frame to get to the file's
end: 554 kB of 300 black frames of 1000 x 1000 take TensorFlow 1.4 s, for the first of them alone.
"""

_IMAGE, _EXTENSION = 0x2C, 0x21
_TABLE, _TABLE_SIZE = 0x80, 0x07  # of a packed byte: a table of colours follows, and its size
MAX_BLOCKS = 1 << 18  # of up to 255 bytes each; a GIF of 64 MiB has as many


def is_gif(data: bytes) -> bool:
    return data.startswith(b"GIF8")


def pixels_of_frames(data: bytes) -> int | None:
    """The pixels of all frames, as far as the file can be followed; None if it takes more than
    MAX_BLOCKS blocks to follow it."""
    pixels, start, blocks = 0, 13 + _table_bytes(data, 10), 0
    while start < len(data) and blocks <= MAX_BLOCKS:
        if data[start] == _IMAGE:
            width, height = data[start + 5 : start + 7], data[start + 7 : start + 9]
            pixels += int.from_bytes(width, "little") * int.from_bytes(height, "little")
            start += 11 + _table_bytes(data, start + 9)
        elif data[start] == _EXTENSION:
            start += 2
        else:
            break
        while start < len(data) and (size := data[start]) and blocks <= MAX_BLOCKS:
            start += 1 + size
            blocks += 1
        start, blocks = start + 1, blocks + 1
    return pixels if blocks <= MAX_BLOCKS else None


def _table_bytes(data: bytes, at: int) -> int:
    """The length of the colours that the packed byte at `at` announces."""
    packed = data[at] if at < len(data) else 0
    return 3 << (packed & _TABLE_SIZE) + 1 if packed & _TABLE else 0

"""How a camera was held, which EXIF has as a number from 1 (upright) to 8.

Pillow's `exif_transpose` also follows XMP, PNG's text chunks and what stands behind the pixels,
where the graph cannot look; so the rule is our own, and both have it. EXIF is looked for before
the pixels of a JPEG or PNG file, and anywhere in a WebP file, which has it at its end.
"""

from PIL import Image

UPRIGHT = 1
TAG = 0x0112
MAX_PARTS = 1000  # of a file that are looked at; libpng stops at as many
EXIF_MARK = b"Exif\0\0"

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """As it was seen.

    >>> turned(Image.new("L", (3, 2)), 6).size
    (2, 3)
    """
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def orientation_of(data: bytes, kind: str) -> int:
    """1 to 8; 1 where nothing is said, or nothing that can be read. kind: a key of FORMATS.

    >>> orientation_of(b"GIF89a", "GIF")
    1
    """
    find = {"JPEG": _exif_of_jpeg, "PNG": _exif_of_png, "WebP": _exif_of_webp}.get(kind)
    return _of_tiff(find(data)) if find else UPRIGHT


def _exif_of_jpeg(data: bytes) -> bytes:
    """TIFF's block of the first EXIF among the APPn and COM segments that a file begins with."""
    at = 2
    for _ in range(MAX_PARTS):
        marker = data[at + 1 : at + 2]
        if data[at : at + 1] != b"\xff" or not (marker == b"\xfe" or b"\xe0" <= marker <= b"\xef"):
            if data[at : at + 2] != b"\xff\xff":
                break
            at += 1  # a byte that fills up
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == b"\xe1" and data.startswith(EXIF_MARK, at + 4):
            return data[at + 10 : end]
        at = end
    return b""


def _exif_of_png(data: bytes) -> bytes:
    at = 8
    for _ in range(MAX_PARTS):
        name, end = data[at + 4 : at + 8], at + 8 + int.from_bytes(data[at : at + 4], "big")
        if name == b"eXIf":
            return data[at + 8 : end]
        if name in (b"IDAT", b""):
            break
        at = end + 4
    return b""


def _exif_of_webp(data: bytes) -> bytes:
    at = 12
    for _ in range(MAX_PARTS):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if name == b"EXIF":
            return data[at + 8 : at + 8 + size].removeprefix(EXIF_MARK)
        if not name:
            break
        at += 8 + size + size % 2
    return b""


def _of_tiff(block: bytes) -> int:
    """By the first tag 0x0112 of the first directory, a SHORT or a LONG."""
    big = block.startswith(b"MM\0*")
    if not big and not block.startswith(b"II*\0"):
        return UPRIGHT

    def number(at: int, size: int) -> int:
        return int.from_bytes(block[at : at + size], "big" if big else "little")

    directory = number(4, 4)
    for each in range(number(directory, 2)):
        at = directory + 2 + 12 * each
        if at + 12 > len(block):
            break
        if number(at, 2) == TAG:
            value = number(at + 8, 4 if number(at + 2, 2) == 4 else 2)
            return value if value in _TURNS else UPRIGHT
    return UPRIGHT

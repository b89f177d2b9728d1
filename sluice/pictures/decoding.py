"""A file to the picture that it shows, by Pillow."""

import io

import numpy as np
from PIL import Image

from sluice.pictures.formats import EXPECTED, foreign, format_of
from sluice.pictures.gif import first_frame
from sluice.pictures.orientation import orientation_of, turned

_BMP_HEADER, _RGB, _BITFIELDS = 40, 0, 3
_COLOUR_MASKS = bytes.fromhex("0000ff00 00ff0000 ff000000")  # blue first, as in 24 bits
_DEPTHS_OF_GRAPH = (8, 24, 32)
_PNG_LEVEL = 1  # a file for the next process: quick, and 1.2 times as long as the smallest

# Pillow's own limit would refuse what SLUICE_MAX_IMAGE_PIXELS allows; whoever decodes files of
# strangers holds them to that before.
Image.MAX_IMAGE_PIXELS = None


class Unreadable(Exception):
    """The file is damaged, or is no picture."""


def graph_reads(data: bytes) -> bool:
    """Whether the published graph decodes this file as it is, by its first bytes.

    TensorFlow reads no BMP but the plainest, and WebP in its newer versions only, where an animated
    one makes it write where it may not (2.21: "double free or corruption"): none is taken to it.

    >>> graph_reads(b"GIF89a"), graph_reads(b"RIFF____WEBPVP8 ")
    (True, False)
    """
    kind = format_of(data)
    return kind in ("JPEG", "PNG", "GIF") or (kind == "BMP" and _is_plain(data))


def for_graph(data: bytes) -> bytes:
    """`data`, or a PNG file of its pixels where the graph does not read it. Raises Unreadable.

    >>> buffer = io.BytesIO()
    >>> Image.new("L", (1, 1)).save(buffer, "WEBP")
    >>> format_of(for_graph(buffer.getvalue()))
    'PNG'
    """
    if graph_reads(data):
        return data
    buffer = io.BytesIO()
    flattened(decode(data)).save(buffer, "PNG", compress_level=_PNG_LEVEL)
    return buffer.getvalue()


def decode(data: bytes, least_side: int | None = None) -> Image.Image:
    """The first frame, upright, in the mode L, LA, RGB or RGBA.

    least_side: pixels; a JPEG whose sides are all above may come smaller by 2, 4 or 8, which takes
    less time. Raises Unreadable.

    >>> buffer = io.BytesIO()
    >>> Image.new("I;16", (1, 1), 0x1234).save(buffer, "PNG")
    >>> decode(buffer.getvalue()).getpixel((0, 0)) == 0x12
    True
    """
    kind = format_of(data)
    try:
        if kind is None:
            raise Unreadable(f"expected {EXPECTED}, got {foreign(data) or 'what is no picture'}")
        image = _still(data) if kind == "GIF" else _decoded(data, kind, least_side)
    except Unreadable:
        raise
    except Exception as error:  # whatever a plug-in of Pillow's raises for its format
        raise Unreadable(str(error) or type(error).__name__) from error
    return turned(image, orientation_of(data, kind))


def flattened(image: Image.Image) -> Image.Image:
    """L or RGB: what is transparent shows white.

    >>> flattened(Image.new("LA", (1, 1), (0, 51))).getpixel((0, 0))
    204
    """
    if image.mode not in ("LA", "RGBA"):
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert(image.mode[:-1])


def _decoded(data: bytes, kind: str, least_side: int | None) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=(kind.upper(),)) as image:
        if least_side:
            image.draft(None, (least_side, least_side))
        image.load()
        if kind == "PNG":
            return _png(image, data)
        if image.mode == "CMYK" and "adobe" not in image.info:
            # Adobe's programs store the inks upside down and leave a mark, which Pillow takes for
            # granted.
            return Image.eval(image, lambda ink: 255 - ink).convert("RGB")
        if kind == "BMP":  # whose fourth byte is filling as often as it is alpha
            return image.convert("L" if image.mode in ("1", "L") else "RGB")
        return image if image.mode in ("L", "RGB", "RGBA") else image.convert("RGB")


def _png(image: Image.Image, data: bytes) -> Image.Image:
    """16 bits to their higher 8; a palette to its colours; one transparent colour to alpha."""
    clear = image.info.get("transparency")
    if image.mode == "P":
        return image.convert("RGB" if clear is None else "RGBA")
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode == "1":
        image = image.convert("L")
    if clear is None or image.mode not in ("L", "RGB"):
        return image
    depth = data[24]
    key = np.array(clear) >> 8 if depth == 16 else np.array(clear) * 255 // (2**depth - 1)
    pixels = np.asarray(image).reshape(image.height, image.width, -1)
    image.putalpha(Image.fromarray(np.where((pixels == key).all(-1), 0, 255).astype(np.uint8)))
    return image


def _still(data: bytes) -> Image.Image:
    """The first frame of a GIF, on white where it does not fill its screen."""
    still = first_frame(data)
    if still is None:
        raise Unreadable("its first frame is not whole")
    with Image.open(io.BytesIO(still.file), formats=("GIF",)) as image:
        frame = image.convert("RGB")
    if frame.size == still.size:
        return frame
    screen = Image.new("RGB", still.size, "white")
    screen.paste(frame, (still.left, still.top))
    return screen


def _is_plain(bmp: bytes) -> bool:
    """Whole colours, or a palette of 256; packed by nothing, and nothing behind the pixels."""

    def number(at: int, size: int) -> int:
        return int.from_bytes(bmp[at : at + size], "little", signed=size == 4)

    start, header, width, height, depth = (
        number(at, size) for at, size in ((10, 4), (14, 4), (18, 4), (22, 4), (28, 2))
    )
    packed = number(30, 4)
    plain = packed == _RGB or (packed == _BITFIELDS and bmp[54:66] == _COLOUR_MASKS and depth == 32)
    lines = (width * depth + 31) // 32 * 4 * abs(height)
    return (
        header >= _BMP_HEADER and depth in _DEPTHS_OF_GRAPH and plain and len(bmp) == start + lines
    )

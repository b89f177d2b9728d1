"""A heatmap laid over its picture, as a PNG file."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from service.gateway.decode.pixels import damaged
from service.gateway.errors import NotAcceptable
from service.gateway.query import Query
from sluice.pictures.decoding import Unreadable, decode, flattened
from sluice.wire.explanations import heatmaps, prefix_of
from sluice.wire.tensors import Array

PNG = "image/png"
LEAST_SIDE, MOST_SIDE = 256, 1024  # pixels of a picture's longer side
STRONGEST = 0.7  # how much the hottest place hides of the picture
_COOL, _HOT = (255, 230, 0), (255, 0, 0)


def encode_overlay(query: Query, why: Mapping[str, Array]) -> bytes:
    """The pictures of a query of one row, each under its heatmap [1, h, w]: the inputs from left
    to right, a further head's below. Raises NotAcceptable for several rows."""
    pictures = {
        name: _picture(name, array) for name, array in query.inputs.items() if _is_image(array)
    }
    rows = [
        [laid_over(_of(pictures, of), why[name][0]) for of, name in found.items()]
        for class_input in query.signature.class_inputs
        if (found := heatmaps(prefix_of(class_input), query.signature))
    ]
    buffer = io.BytesIO()
    _in_a_grid(rows).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def laid_over(picture: Image.Image, heatmap: Array) -> Image.Image:
    """`picture` under `heatmap` [h, w] of 0..1: yellow to red, and stronger where it is hotter."""
    heat = Image.fromarray(np.uint8(np.nan_to_num(heatmap).clip(0, 1) * 255))
    heat = heat.resize(picture.size, Image.Resampling.BILINEAR)
    colours = [
        heat.point([round(cool + (hot - cool) * at / 255) for at in range(256)])
        for cool, hot in zip(_COOL, _HOT, strict=True)
    ]
    strength = heat.point([round(STRONGEST * at) for at in range(256)])
    return Image.composite(Image.merge("RGB", colours), picture, strength)


def _is_image(array: Array) -> bool:
    return array.dtype.kind == "O" or array.ndim == 4


def _picture(name: str, array: Array) -> Image.Image:
    """The only row of an input, files [1] or pixels [1, H, W, C], as RGB, of a size to look at."""
    if len(array) != 1:
        raise NotAcceptable(
            f"A PNG shows one explanation, and the request has {len(array)} rows; send one, or "
            "accept application/json"
        )
    image = _decoded(name, array[0]) if array.dtype.kind == "O" else _of_pixels(array[0])
    longer = max(image.size)
    scale = min(max(longer, LEAST_SIDE), MOST_SIDE) / longer
    if scale == 1:
        return image.convert("RGB")
    width, height = (max(1, round(side * scale)) for side in image.size)
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR
    return image.convert("RGB").resize((width, height), how)


def _decoded(name: str, data: bytes) -> Image.Image:
    try:
        return flattened(decode(data, MOST_SIDE))
    except Unreadable as error:  # which the model's graph has read all the same
        raise damaged(name, error, "") from error


def _of_pixels(array: Array) -> Image.Image:
    pixels = np.nan_to_num(array).clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] < 3 else pixels[:, :, :3])


def _of(pictures: Mapping[str, Image.Image], name: str) -> Image.Image:
    """The picture of an input; "" is the only one's name."""
    return pictures[name] if name else next(iter(pictures.values()))


def _in_a_grid(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    heights = [max(image.height for image in row) for row in rows]
    width = max(sum(image.width for image in row) for row in rows)
    grid = Image.new("RGB", (width, sum(heights)), "white")
    for at, row in enumerate(rows):
        left = 0
        for image in row:
            grid.paste(image, (left, sum(heights[:at])))
            left += image.width
    return grid

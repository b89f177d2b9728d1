"""Tensors as pixels: pictures, masks and heat, uint8 [H, W, C]."""

import colorsys
import re

import numpy as np

from sluice.wire.contract import HEATMAP
from sluice.wire.signature import CHANNELS
from sluice.wire.tensors import Array

MOST_SIDE = 256  # pixels that an array is drawn with, each way
IS_HEATMAP = re.compile(rf"(^|_){HEATMAP}(_|$)")
_IS_PICTURE = re.compile(r"picture(_|$)")
_SIGNED = -0.5  # what is below is no slip below 0
_MASK, _HEAT = 150, 190  # of 255: what covers the picture as far as that


def picture(values: Array, bounds: tuple[float, float]) -> Array:
    """[H, W, C] as pixels; bounds: the numbers that are black and white.

    >>> picture(np.array([[[-1.0], [0.0], [1.0]]]), (-1, 1)).tolist()
    [[[0], [128], [255]]]
    """
    low, high = bounds
    # Cut off first: what is far beyond would be beyond float32 too.
    within = np.nan_to_num(_smaller(values).clip(float(low), float(high)).astype(np.float32))
    pixels: Array = ((within - low) * (255 / (high - low))).round().astype(np.uint8)
    return pixels


def mask(values: Array) -> Array:
    """Scores of the classes of each pixel, [h, w, C], with the background first; or how sure one
    class is, [h, w, 1]; or their numbers, integers [h, w]: colours to lay over a picture.

    >>> mask(np.array([[[0.9, 0.1], [0.2, 0.8]]]))[0, :, 3].tolist()
    [0, 150]
    """
    values = _smaller(values)
    if values.ndim == 2:
        classes = values
    elif values.shape[2] == 1:
        classes = (values[..., 0] > 0.5).astype(int)
    else:
        classes = values.argmax(axis=2)
    pixels = np.zeros((*classes.shape, 4), np.uint8)
    for number in np.unique(classes[classes > 0]).tolist():
        pixels[classes == number] = (*class_colour(number), _MASK)
    return pixels


def heat(values: Array) -> Array:
    """[h, w] of 0..1 from clear to red to yellow, to lay over a picture.

    >>> heat(np.array([[0.0, 0.5, 1.0]])).tolist()
    [[[255, 0, 0, 0], [255, 128, 0, 95], [255, 255, 0, 190]]]
    """
    values = np.nan_to_num(_smaller(values).astype(np.float32)).clip(0, 1)
    pixels = np.empty((*values.shape, 4), np.uint8)
    pixels[..., 0], pixels[..., 2] = 255, 0
    pixels[..., 1], pixels[..., 3] = (values * 255).round(), (values * _HEAT).round()
    return pixels


def class_colour(number: int) -> tuple[int, ...]:
    """Red, green, blue: far from those of the numbers beside it.

    >>> class_colour(1), class_colour(2)
    ((0, 255, 74), (149, 0, 255))
    """
    return tuple(round(255 * each) for each in colorsys.hsv_to_rgb(number * 137.5 / 360 % 1, 1, 1))


def is_picture(values: Array) -> bool:
    """Whether [N, H, W, C] may be pictures: none of no height or width."""
    is_image = values.ndim == 4 and values.dtype.kind in "fiu" and values.shape[3] in CHANNELS
    return is_image and 0 not in values.shape[1:]


def is_unit(values: Array) -> bool:
    """Whether numbers are of 0..1, as nothing is above; pictures then are."""
    return values.dtype.kind in "fiub" and bool(np.nan_to_num(values).max(initial=0) <= 1.5)


def bounds_of(values: Array) -> tuple[float, float]:
    """What is black and white in pictures: 0..255, 0..1, or -1..1, as a tanh gives.

    >>> bounds_of(np.array([0.0, 0.9])), bounds_of(np.array([-0.9, 0.9])), bounds_of(np.array([9]))
    ((0, 1), (-1, 1), (0, 255))
    """
    if not is_unit(values):
        return 0, 255
    return (-1 if np.nan_to_num(values).min(initial=0) < _SIGNED else 0), 1


def is_mask(name: str, values: Array) -> bool:
    """Whether [N, h, w, C] sorts the pixels of a picture, as `mask` takes it. One number a pixel
    may do so, or be a grey picture: a model of a stranger is published with the name that tells."""
    if IS_HEATMAP.search(name) or not values.size or values.dtype.kind not in "fiub":
        return False
    if values.ndim != 4:
        return values.ndim == 3 and values.dtype.kind in "iub"
    if values.shape[3] == 1:
        return not _IS_PICTURE.match(name) and bool((values >= 0).all() and (values <= 1).all())
    return bool(np.allclose(values[:1].sum(axis=3), 1, atol=0.01))


def is_logits(values: Array) -> bool:
    """Whether what has the form of pictures is a mask's scores before their softmax, which `mask`
    takes too: pictures have no numbers below 0, but for those of -1..1.

    >>> is_logits(np.array([[[[-3.0, 0.5, 4.0]]]])), is_logits(np.array([[[[-0.9, 0.5, 1.0]]]]))
    (True, False)
    """
    may_be = is_picture(values) and values.shape[3] > 1
    return may_be and not is_unit(values) and bool(values.min(initial=0) < 0)


def is_heat(name: str, values: Array) -> bool:
    """Whether [N, h, w] says where a model looked: what `explain` answers with; none of no height
    or width."""
    is_map = values.ndim == 3 and values.dtype.kind == "f" and 0 not in values.shape[1:]
    return is_map and bool(IS_HEATMAP.search(name))


def _smaller(values: Array) -> Array:
    """Every nth line and column, so that neither side is above MOST_SIDE."""
    step = max(1, -(-max(values.shape[:2]) // MOST_SIDE))
    return values[::step, ::step]

"""Where to look for the evidence in a picture: a convolution's maps, tokens, or the picture."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import tensorflow as tf
from keras import layers

from training.errors import UnknownName
from training.explaining.graph import Tensors, behind, sees_through
from training.explaining.recording import Given
from training.explaining.tokens import Tokens, half_way, is_attention

PIXELS = ""  # the name of what is no layer

_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative", "Conv2DBackpropInput")  # as TensorFlow's ops
# What makes maps of other sizes or places of a convolution's, and adds nothing to them.
_NOT_LOOKED_AT = (
    layers.AveragePooling2D,
    layers.MaxPooling2D,
    layers.GlobalAveragePooling2D,
    layers.GlobalMaxPooling2D,
    layers.UpSampling2D,
    layers.ZeroPadding2D,
    layers.Cropping2D,
    layers.Reshape,
    layers.Permute,
)


@dataclass(frozen=True)
class Place:
    """tensor: feature maps [N, h, w, C] of the layer at `path`, or pixels where it is PIXELS.
    tokens: what is known of the tensor where it is tokens [N, T, C].

    >>> Place(PIXELS, tf.zeros((1, 8, 8, 1))).is_layer
    False
    """

    path: str
    tensor: tf.Tensor
    tokens: Tokens | None = None

    @property
    def is_layer(self) -> bool:
        return self.path != PIXELS


def find(
    given: Sequence[Given], image: tf.Tensor, score: tf.Tensor, named: Collection[str] = ()
) -> Place | None:
    """Where the evidence of `image` [N, H, W, C] for `score` lies; None where it has none to give.

    The maps of the last convolution before a flatten or a global pooling, as they are after its
    normalisation, sum and activation, and where branches have met again. Where
    attention comes after them, what it moves about is no map any more: then tokens half way, whose
    gradient is half the work. The picture itself where there is no convolution on the way, or no
    tokens of which it is known what they are of.

    given: what the layers gave in the graph that `image` and `score` are of.
    named: layers to look at instead, by name or path, where one is on the way.
    """
    used = behind(score)
    if image.name not in used:
        return None
    maps = [each for each in _once(given) if each.output.name in used and _is_map(each.output)]
    for each in reversed(maps):
        if {each.path, each.name} & {*named} and image.name in behind(each.output):
            return Place(each.path, each.output)
    convolved = [
        each
        for each in reversed(maps)
        if not isinstance(each.layer, _NOT_LOOKED_AT) and _from_convolution(each.output, image)
    ]
    alone = (each for each in convolved if sees_through(score, each.output, image))
    chosen = next(alone, convolved[0] if convolved else None)
    if chosen and not _attended(chosen.output, used):
        return Place(chosen.path, chosen.output)
    found = half_way(_once(given), image, score)
    return Place(found.given.path, found.given.output, found) if found else _picture(image)


def check_named(given: Sequence[Given], named: Collection[str]) -> None:
    """Raises UnknownName for a layer that the model has not, or that gives no maps."""
    known = {each.path: each for each in given if _is_map(each.output)}
    names = {*known, *(each.name for each in known.values())}
    for name in named:
        if name not in names:
            raise UnknownName("the model has no layer of maps [N, h, w, C] called", name, known)


def _once(given: Sequence[Given]) -> list[Given]:
    """Without those that hand on what another layer gave: a dropout, the model around it."""
    first = {each.output.name: each for each in reversed(given)}
    return [each for each in given if first[each.output.name] is each]


def _is_map(tensor: tf.Tensor) -> bool:
    """[N, h, w, C] with more than one place."""
    return tensor.shape.rank == 4 and tuple(tensor.shape[1:3]) != (1, 1)


def _from_convolution(tensor: tf.Tensor, image: tf.Tensor) -> bool:
    """Made of `image` by a convolution, and a map all the way: not out of tokens."""
    maps = behind(tensor, through=lambda each: each.shape.rank == 4)
    return image.name in maps and any(each.op.type in _CONVOLUTIONS for each in maps.values())


def _picture(image: tf.Tensor) -> Place | None:
    return Place(PIXELS, image) if image.dtype.is_floating else None  # whole numbers have no slope


def _attended(maps: tf.Tensor, used: Tensors) -> bool:
    return any(is_attention(each) and maps.name in behind(each) for each in used.values())

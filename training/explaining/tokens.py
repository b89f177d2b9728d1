"""Where a transformer's tokens are a picture's patches, so that heat on them is heat in it."""

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from training.explaining.graph import Tensors, behind, sees_through
from training.explaining.recording import Given


@dataclass(frozen=True)
class Grid:
    """Tokens [N, T, C], of which those from `first` on are patches [N, height, width, C].

    >>> tokens = tf.reshape(tf.range(5), (1, 5, 1))  # a class token before 2x2 patches
    >>> Grid(1, 2, 2).laid_out(tokens)[..., 0].numpy().tolist()
    [[[1, 2], [3, 4]]]
    """

    first: int
    height: int
    width: int

    def laid_out(self, tokens: tf.Tensor) -> tf.Tensor:
        """[N, T, ...] -> [N, height, width, ...]."""
        patches = tokens[:, self.first : self.first + self.height * self.width]
        return tf.reshape(patches, [-1, self.height, self.width, *patches.shape[2:]])


@dataclass(frozen=True)
class Tokens:
    """What a layer gave: tokens whose `grid` is the picture's patches.

    attentions: the softmax of each that came before them, the first one first, [N, heads, T, T].

    >>> Tokens(Given("block", None, tf.zeros((1, 4, 8))), Grid(0, 2, 2), ()).given.path
    'block'
    """

    given: Given
    grid: Grid
    attentions: tuple[tf.Tensor, ...]


def half_way(given: Sequence[Given], image: tf.Tensor, score: tf.Tensor) -> Tokens | None:
    """The last tokens that half of the attentions come after, and through which alone `score`
    sees `image`; None where there are none, or it cannot be told which place of the picture each
    is of: attention in windows, or tokens that became fewer on the way.

    >>> with tf.Graph().as_default():
    ...     image = tf.compat.v1.placeholder(tf.float32, (None, 2, 3, 1))
    ...     tokens = tf.reshape(image, (-1, 6, 1))
    ...     attention = tf.nn.softmax(tf.matmul(tokens, tokens, transpose_b=True))
    ...     score = tf.reduce_sum(tf.matmul(attention, tokens), axis=[1, 2])
    ...     half_way([Given("patches", None, tokens)], image, score).grid
    Grid(first=0, height=2, width=3)
    """
    used = behind(score)
    attentions = [each for each in used.values() if is_attention(each)]
    after = [behind(each) for each in attentions if image.name in behind(each)]
    for each in reversed(given):
        tokens = each.output
        if (
            tokens.name in used
            and tokens.shape.rank == 3
            and tokens.shape[2]
            and sum(tokens.name in further for further in after) >= max(1, len(after) // 2)
            and sees_through(score, tokens, image)
        ):
            return _placed(each, image)
    return None


def is_attention(tensor: tf.Tensor) -> bool:
    """Whether it is a softmax of more than a score for each row.

    >>> with tf.Graph().as_default():
    ...     [is_attention(tf.nn.softmax(tf.zeros(shape))) for shape in ((1, 4, 4), (1, 4))]
    [True, False]
    """
    return tensor.op.type == "Softmax" and (tensor.shape.rank or 0) > 2


def _placed(given: Given, image: tf.Tensor) -> Tokens | None:
    made_of = behind(given.output)
    attentions = [each for each in made_of.values() if is_attention(each)]
    count = given.output.shape[1]
    whole = all(each.shape.rank == 4 and each.shape[2:] == (count, count) for each in attentions)
    grid = _grid(given.output, image)
    if not whole or grid is None:
        return None
    attentions.sort(key=lambda each: len(behind(each)))  # a later one is made of more
    return Tokens(given, grid, tuple(attentions))


def _grid(tokens: tf.Tensor, image: tf.Tensor) -> Grid | None:
    """Of as many patches as there are tokens, or fewer where others were joined to them; None where
    a map was turned over: its places are others then."""
    made_of = behind(tokens)
    if any(each.op.type == "Transpose" and _is_map_of(image, each) for each in made_of.values()):
        return None
    for each in made_of.values():
        if not _is_map_of(image, each):
            continue
        height, width = each.shape[1:3]
        if height and width and height * width > 1:
            before, joined = _joined(made_of, image, height * width)
            if height * width + joined == tokens.shape[1]:
                return Grid(before, height, width)
    return None


def _is_map_of(image: tf.Tensor, each: tf.Tensor) -> bool:
    """Made of it, and a map [N, h, w, C] all the way."""
    if each.shape.rank != 4:
        return False
    return image.name in behind(each, through=lambda other: other.shape.rank == 4)


def _joined(made_of: Tensors, image: tf.Tensor, patches: int) -> tuple[int, int]:
    """How many tokens were joined to a picture's, as a class token is: before them, and in all."""
    before = joined = 0
    for each in made_of.values():
        if each.op.type != "ConcatV2" or each.shape.rank != 3:
            continue
        parts = list(each.op.inputs)[:-1]  # the last is the axis
        which = [
            number
            for number, part in enumerate(parts)
            if _values(part) and image.name in behind(part, _values)
        ]
        lengths = [part.shape[1] for part in parts]
        if len(which) == 1 and None not in lengths and each.shape[1] == sum(lengths) > patches:
            before += sum(lengths[: which[0]])
            joined += sum(lengths) - lengths[which[0]]
    return before, joined


def _values(tensor: tf.Tensor) -> bool:
    """Not its shape alone, which a class token is made of too."""
    return tensor.op.type not in ("Shape", "ZerosLike", "OnesLike")

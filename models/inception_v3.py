"""Inception v3: blocks of parallel branches, joined along the channels.

Szegedy, Vanhoucke, Ioffe, Shlens and Wojna, "Rethinking the Inception Architecture for Computer
Vision" (arXiv:1512.00567), table 1 and figures 5 to 7, without the auxiliary head:
23,851,784 parameters. The blocks carry the names of `keras.applications`.
"""

from typing import Literal, NamedTuple

import keras
from keras import layers

from models.preprocessing import preprocess as preprocessed


class _Conv(NamedTuple):
    """A convolution, batch normalisation and ReLU."""

    filters: int
    kernel: tuple[int, int]
    stride: int = 1
    padding: str = "same"


class _Fork(NamedTuple):
    """A row and a column convolution on the same input, joined: where figure 7 parts again."""

    filters: int


_Pool = Literal["average", "max"]  # of 3x3: at stride 1, and at stride 2
_Step = _Conv | _Fork | _Pool
_Branch = list[_Step]
_Block = dict[str, _Branch]


def _figure5(pooled: int) -> _Block:
    return {
        "1x1": [_Conv(64, (1, 1))],
        "5x5": [_Conv(48, (1, 1)), _Conv(64, (5, 5))],
        "3x3": [_Conv(64, (1, 1)), _Conv(96, (3, 3)), _Conv(96, (3, 3))],
        "pool": ["average", _Conv(pooled, (1, 1))],
    }


def _figure6(filters: int) -> _Block:
    point, row, column = _Conv(filters, (1, 1)), _Conv(filters, (1, 7)), _Conv(filters, (7, 1))
    return {
        "1x1": [_Conv(192, (1, 1))],
        "7x7": [point, row, _Conv(192, (7, 1))],
        "7x7_twice": [point, column, row, column, _Conv(192, (1, 7))],
        "pool": ["average", _Conv(192, (1, 1))],
    }


_FIGURE7: _Block = {
    "1x1": [_Conv(320, (1, 1))],
    "3x3": [_Conv(384, (1, 1)), _Fork(384)],
    "3x3_twice": [_Conv(448, (1, 1)), _Conv(384, (3, 3)), _Fork(384)],
    "pool": ["average", _Conv(192, (1, 1))],
}
_SHRINK_35_TO_17: _Block = {
    "3x3": [_Conv(384, (3, 3), 2, "valid")],
    "3x3_twice": [_Conv(64, (1, 1)), _Conv(96, (3, 3)), _Conv(96, (3, 3), 2, "valid")],
    "pool": ["max"],
}
_SHRINK_17_TO_8: _Block = {
    "3x3": [_Conv(192, (1, 1)), _Conv(320, (3, 3), 2, "valid")],
    "7x7": [
        _Conv(192, (1, 1)),
        _Conv(192, (1, 7)),
        _Conv(192, (7, 1)),
        _Conv(192, (3, 3), 2, "valid"),
    ],
    "pool": ["max"],
}
_STEM: _Branch = [
    _Conv(32, (3, 3), 2, "valid"),  # [N, 149, 149, 32]
    _Conv(32, (3, 3), 1, "valid"),  # [N, 147, 147, 32]
    _Conv(64, (3, 3)),
    "max",  # [N, 73, 73, 64]
    _Conv(80, (1, 1)),
    _Conv(192, (3, 3), 1, "valid"),  # [N, 71, 71, 192]
    "max",  # [N, 35, 35, 192]
]
_BLOCKS: list[_Block] = [
    *(_figure5(pooled) for pooled in (32, 64, 64)),  # [N, 35, 35, 288]
    _SHRINK_35_TO_17,
    *(_figure6(filters) for filters in (128, 160, 160, 192)),  # [N, 17, 17, 768]
    _SHRINK_17_TO_8,
    *(_FIGURE7, _FIGURE7),  # [N, 8, 8, 2048]
]


def inception_v3(
    input_shape: tuple[int, int, int] = (299, 299, 3),
    classes: int = 1000,
    *,
    width: float = 1.0,
    preprocess: str = "tf",
) -> keras.Model:
    """[N, H, W, C] of 0..255 -> label [N, classes].

    input_shape: H and W are at least 75.
    width: what the channels of every convolution are multiplied by.
    preprocess: a mode of `models.preprocessing`.

    >>> inception_v3((75, 75, 3), 10, width=0.05).output_shape
    (None, 10)
    """
    image = keras.Input(input_shape, name="image")  # [N, 299, 299, 3]
    x = preprocessed(image, preprocess)
    x = _branch(x, _STEM, width, name="stem")  # [N, 35, 35, 192]
    for number, block in enumerate(_BLOCKS):
        x = _inception_block(x, block, width, name=f"mixed{number}")
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)  # [N, 2048]
    label = layers.Dense(classes, activation="softmax", dtype="float32", name="label")(x)
    return keras.Model(image, label, name="inception_v3")


def _inception_block(
    x: keras.KerasTensor, block: _Block, width: float, name: str
) -> keras.KerasTensor:
    branches = [_branch(x, steps, width, f"{name}_{kind}") for kind, steps in block.items()]
    return layers.Concatenate(name=name)(branches)


def _branch(x: keras.KerasTensor, steps: _Branch, width: float, name: str) -> keras.KerasTensor:
    for number, step in enumerate(steps, start=1):
        x = _apply(step, x, width, f"{name}_{number}")
    return x


def _apply(step: _Step, x: keras.KerasTensor, width: float, name: str) -> keras.KerasTensor:
    match step:
        case _Conv(filters, kernel, stride, padding):
            x = layers.Conv2D(
                round(filters * width), kernel, stride, padding, use_bias=False, name=f"{name}_conv"
            )(x)
            x = layers.BatchNormalization(scale=False, name=f"{name}_bn")(x)
            return layers.Activation("relu", name=f"{name}_relu")(x)
        case _Fork(filters):
            sides = {"row": _Conv(filters, (1, 3)), "column": _Conv(filters, (3, 1))}
            return _inception_block(x, {side: [conv] for side, conv in sides.items()}, width, name)
        case "average":
            return layers.AveragePooling2D(3, strides=1, padding="same", name=name)(x)
        case "max":
            return layers.MaxPooling2D(3, strides=2, name=name)(x)

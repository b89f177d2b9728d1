"""Inception v3: blocks of parallel branches, joined along the channels.

Szegedy, Vanhoucke, Ioffe, Shlens and Wojna, "Rethinking the Inception Architecture for Computer
Vision" (arXiv:1512.00567), table 1 and figures 5 to 7, without the auxiliary head:
23,851,784 parameters. The blocks carry the names of `keras.applications`.
"""

from typing import NamedTuple

import keras
from keras import layers

from models.preprocessing import preprocess as preprocessed


class Conv(NamedTuple):
    """A convolution, batch normalisation and ReLU."""

    filters: int
    kernel: tuple[int, int]
    stride: int = 1
    padding: str = "same"


class Fork(NamedTuple):
    """A row and a column convolution on the same input, joined: where figure 7 parts again."""

    filters: int


AVERAGE, MAX = "average", "max"
Branch = list[Conv | Fork | str]
Block = dict[str, Branch]


def figure5(pooled: int) -> Block:
    return {
        "1x1": [Conv(64, (1, 1))],
        "5x5": [Conv(48, (1, 1)), Conv(64, (5, 5))],
        "3x3": [Conv(64, (1, 1)), Conv(96, (3, 3)), Conv(96, (3, 3))],
        "pool": [AVERAGE, Conv(pooled, (1, 1))],
    }


def figure6(filters: int) -> Block:
    point, row, column = Conv(filters, (1, 1)), Conv(filters, (1, 7)), Conv(filters, (7, 1))
    return {
        "1x1": [Conv(192, (1, 1))],
        "7x7": [point, row, Conv(192, (7, 1))],
        "7x7_twice": [point, column, row, column, Conv(192, (1, 7))],
        "pool": [AVERAGE, Conv(192, (1, 1))],
    }


FIGURE7: Block = {
    "1x1": [Conv(320, (1, 1))],
    "3x3": [Conv(384, (1, 1)), Fork(384)],
    "3x3_twice": [Conv(448, (1, 1)), Conv(384, (3, 3)), Fork(384)],
    "pool": [AVERAGE, Conv(192, (1, 1))],
}
SHRINK_35_TO_17: Block = {
    "3x3": [Conv(384, (3, 3), 2, "valid")],
    "3x3_twice": [Conv(64, (1, 1)), Conv(96, (3, 3)), Conv(96, (3, 3), 2, "valid")],
    "pool": [MAX],
}
SHRINK_17_TO_8: Block = {
    "3x3": [Conv(192, (1, 1)), Conv(320, (3, 3), 2, "valid")],
    "7x7": [
        Conv(192, (1, 1)),
        Conv(192, (1, 7)),
        Conv(192, (7, 1)),
        Conv(192, (3, 3), 2, "valid"),
    ],
    "pool": [MAX],
}
STEM: Branch = [
    Conv(32, (3, 3), 2, "valid"),  # [N, 149, 149, 32]
    Conv(32, (3, 3), 1, "valid"),  # [N, 147, 147, 32]
    Conv(64, (3, 3)),
    MAX,  # [N, 73, 73, 64]
    Conv(80, (1, 1)),
    Conv(192, (3, 3), 1, "valid"),  # [N, 71, 71, 192]
    MAX,  # [N, 35, 35, 192]
]
BLOCKS: list[Block] = [
    *(figure5(pooled) for pooled in (32, 64, 64)),  # [N, 35, 35, 288]
    SHRINK_35_TO_17,
    *(figure6(filters) for filters in (128, 160, 160, 192)),  # [N, 17, 17, 768]
    SHRINK_17_TO_8,
    *(FIGURE7, FIGURE7),  # [N, 8, 8, 2048]
]


def inception_v3(
    input_shape: tuple[int, int, int] = (299, 299, 3),
    classes: int = 1000,
    *,
    width: float = 1.0,
    preprocess: str = "tf",
) -> keras.Model:
    """[N, H, W, C] of 0..255 -> label [N, classes].

    Args:
        input_shape: H and W are at least 75.
        width: what the channels of every convolution are multiplied by.
        preprocess: a mode of `models.preprocessing`.
    """
    image = keras.Input(input_shape, name="image")  # [N, 299, 299, 3]
    x = preprocessed(image, preprocess)
    x = branch(x, STEM, width, name="stem")  # [N, 35, 35, 192]
    for number, block in enumerate(BLOCKS):
        x = inception_block(x, block, width, name=f"mixed{number}")
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)  # [N, 2048]
    label = layers.Dense(classes, activation="softmax", dtype="float32", name="label")(x)
    return keras.Model(image, label, name="inception_v3")


def inception_block(
    x: keras.KerasTensor, block: Block, width: float, name: str
) -> keras.KerasTensor:
    branches = [branch(x, steps, width, f"{name}_{kind}") for kind, steps in block.items()]
    return layers.Concatenate(name=name)(branches)


def branch(x: keras.KerasTensor, steps: Branch, width: float, name: str) -> keras.KerasTensor:
    for number, step in enumerate(steps, start=1):
        x = apply(step, x, width, f"{name}_{number}")
    return x


def apply(
    step: Conv | Fork | str, x: keras.KerasTensor, width: float, name: str
) -> keras.KerasTensor:
    match step:
        case Conv(filters, kernel, stride, padding):
            x = layers.Conv2D(
                round(filters * width), kernel, stride, padding, use_bias=False, name=f"{name}_conv"
            )(x)
            x = layers.BatchNormalization(scale=False, name=f"{name}_bn")(x)
            return layers.Activation("relu", name=f"{name}_relu")(x)
        case Fork(filters):
            sides = {"row": Conv(filters, (1, 3)), "column": Conv(filters, (3, 1))}
            return inception_block(x, {side: [conv] for side, conv in sides.items()}, width, name)
        case "average":
            return layers.AveragePooling2D(3, strides=1, padding="same", name=name)(x)
        case _:
            return layers.MaxPooling2D(3, strides=2, name=name)(x)

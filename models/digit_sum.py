"""Two digits and their sum: one encoder used twice, three heads."""

import keras
from keras import layers

from models.trunk import trunk


def digit_sum(
    input_shape: tuple[int, int, int] = (28, 28, 1),
    classes: int = 10,
    *,
    width: int = 32,
    units: int = 64,
    dropout: float = 0.25,
) -> keras.Model:
    """left and right, each [N, H, W, C] of 0..255 -> left_digit and right_digit [N, classes], and
    sum [N, 2 * classes - 1].

    input_shape: of one digit's image.
    width: channels of the encoder's first convolution.
    units: features of one digit; the sum's hidden layer has twice as many.

    >>> model = digit_sum((8, 8, 1), width=4, units=8)
    >>> {name: head.shape for name, head in model.output.items()}
    {'left_digit': (None, 10), 'right_digit': (None, 10), 'sum': (None, 19)}
    """
    left = keras.Input(input_shape, name="left")
    right = keras.Input(input_shape, name="right")
    encode = _encoder(input_shape, width, units, dropout)
    left_features, right_features = encode(left), encode(right)  # [N, 64] each
    x = layers.Concatenate(name="both")([left_features, right_features])  # [N, 128]
    x = layers.Dense(2 * units, activation="relu", name="sum_hidden")(x)
    outputs = {
        "left_digit": _head(left_features, classes, "left_digit"),
        "right_digit": _head(right_features, classes, "right_digit"),
        "sum": _head(x, 2 * classes - 1, "sum"),
    }
    return keras.Model([left, right], outputs, name="digit_sum")


def _encoder(
    input_shape: tuple[int, int, int], width: int, units: int, dropout: float
) -> keras.Model:
    """One digit's image -> its features [N, units]; both digits share its weights."""
    digit = keras.Input(input_shape, name="digit")
    x = trunk(digit, width, units, name="trunk")
    x = layers.Dropout(dropout, name="dropout")(x)
    return keras.Model(digit, x, name="encoder")


def _head(x: keras.KerasTensor, classes: int, name: str) -> keras.KerasTensor:
    return layers.Dense(classes, activation="softmax", dtype="float32", name=name)(x)

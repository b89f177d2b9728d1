"""A multilayer perceptron: the plainest stack."""

import keras
from keras import layers


def mlp(
    input_shape: tuple[int, int, int] = (28, 28, 1),
    classes: int = 10,
    *,
    units: tuple[int, ...] = (512, 256),
    dropout: float = 0.2,
) -> keras.Model:
    """[N, H, W, C] of 0..255 -> label [N, classes]; 535,818 parameters at 28x28x1.

    units: width of each hidden layer.
    dropout: after each of them.

    >>> mlp((28, 28, 1), 10, units=(8, 8)).output_shape
    (None, 10)
    """
    hidden = [
        layer
        for depth, width in enumerate(units, start=1)
        for layer in (
            layers.Dense(width, activation="relu", name=f"hidden{depth}"),
            layers.Dropout(dropout, name=f"hidden{depth}_dropout"),
        )
    ]
    return keras.Sequential(
        [
            keras.Input(input_shape, name="image"),
            layers.Rescaling(1 / 255, name="rescale"),
            layers.Flatten(name="flatten"),
            *hidden,
            layers.Dense(classes, activation="softmax", dtype="float32", name="label"),
        ],
        name="mlp",
    )

"""One small convolutional network, written twice: as a stack, and as a graph.

Both have 33,033,802 parameters at 256x256x3 and 10 classes, and with the same weights they give
the same outputs to the bit. docs/models.md says when the second spelling is needed.
"""

import keras
from keras import layers


def cnn_sequential(
    input_shape: tuple[int, int, int] = (256, 256, 3),
    classes: int = 10,
    *,
    filters: int = 32,
    units: int = 64,
) -> keras.Model:
    """[N, H, W, C] of 0..255 -> label [N, classes].

    filters: channels of the convolution.
    units: width of the hidden dense layer.

    >>> cnn_sequential((28, 28, 1), filters=4, units=8).output_shape
    (None, 10)
    """
    return keras.Sequential(
        [
            keras.Input(input_shape, name="image"),
            layers.Rescaling(1 / 255, name="rescale"),
            layers.Conv2D(filters, 3, activation="relu", name="conv"),
            layers.MaxPooling2D(2, name="pool"),
            layers.Flatten(name="flatten"),
            layers.Dense(units, activation="relu", name="hidden"),
            layers.Dense(classes, activation="softmax", dtype="float32", name="label"),
        ],
        name="cnn_sequential",
    )


def cnn_functional(
    input_shape: tuple[int, int, int] = (256, 256, 3),
    classes: int = 10,
    *,
    filters: int = 32,
    units: int = 64,
) -> keras.Model:
    """[N, H, W, C] of 0..255 -> label [N, classes].

    filters: channels of the convolution.
    units: width of the hidden dense layer.

    >>> cnn_functional((28, 28, 1), filters=4, units=8).output_shape
    (None, 10)
    """
    image = keras.Input(input_shape, name="image")  # [N, 256, 256, 3]
    x = layers.Rescaling(1 / 255, name="rescale")(image)
    x = layers.Conv2D(filters, 3, activation="relu", name="conv")(x)  # [N, 254, 254, 32]
    x = layers.MaxPooling2D(2, name="pool")(x)  # [N, 127, 127, 32]
    x = layers.Flatten(name="flatten")(x)  # [N, 516128]
    x = layers.Dense(units, activation="relu", name="hidden")(x)  # [N, 64]
    label = layers.Dense(classes, activation="softmax", dtype="float32", name="label")(x)
    return keras.Model(image, label, name="cnn_functional")

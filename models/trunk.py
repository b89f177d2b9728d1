"""The small convolutional trunk under the models whose subject is their inputs and heads."""

import keras
from keras import layers


def trunk(image: keras.KerasTensor, width: int, units: int, name: str) -> keras.KerasTensor:
    """[N, H, W, C] of 0..255 -> features [N, units]; H and W are at least 4.

    >>> trunk(keras.Input((8, 8, 1)), width=4, units=16, name="left").shape
    (None, 16)
    """
    x = layers.Rescaling(1 / 255, name=f"{name}_rescale")(image)
    for block, filters in enumerate((width, 2 * width), start=1):
        x = layers.Conv2D(
            filters, 3, padding="same", activation="relu", name=f"{name}_conv{block}"
        )(x)
        x = layers.MaxPooling2D(2, name=f"{name}_pool{block}")(x)  # [N, H / 4, W / 4, 2 * width]
    x = layers.Flatten(name=f"{name}_flatten")(x)
    return layers.Dense(units, activation="relu", name=f"{name}_features")(x)

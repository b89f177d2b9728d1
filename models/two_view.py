"""Two cameras on one thing: a tower per view, joined before the decision."""

import keras
from keras import layers

from models.trunk import trunk


def two_view(
    input_shape: tuple[int, int, int] = (28, 14, 1),
    classes: int = 10,
    *,
    views: tuple[str, ...] = ("left", "right"),
    width: int = 32,
    units: int = 64,
    dropout: float = 0.25,
) -> keras.Model:
    """One [N, H, W, C] of 0..255 per view -> label [N, classes].

    input_shape: of one view.
    views: the names of the inputs.
    width: channels of a tower's first convolution.
    units: features of a tower, and of the layer that joins them.

    >>> model = two_view((8, 8, 1), views=("front", "back"), width=4, units=8)
    >>> [image.name for image in model.inputs], model.output_shape
    (['front', 'back'], (None, 10))
    """
    images = [keras.Input(input_shape, name=view) for view in views]
    towers = [trunk(image, width, units, name=image.name) for image in images]
    x = layers.Concatenate(name="views")(towers)  # [N, 2 * 64]
    x = layers.Dense(units, activation="relu", name="joined")(x)  # [N, 64]
    x = layers.Dropout(dropout, name="dropout")(x)
    label = layers.Dense(classes, activation="softmax", dtype="float32", name="label")(x)
    return keras.Model(images, label, name="two_view")

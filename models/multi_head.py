"""One trunk, several answers: a class, and how much of something is in the image."""

import keras
from keras import layers

from models.trunk import trunk


def multi_head(
    input_shape: tuple[int, int, int] = (28, 28, 1),
    classes: int = 10,
    *,
    targets: tuple[str, ...] = ("coverage",),
    width: int = 32,
    units: int = 128,
    dropout: float = 0.25,
) -> keras.Model:
    """[N, H, W, C] of 0..255 -> label [N, classes], and per target [N, 1] in 0..1.

    The heads' losses differ in scale (a cross-entropy near 1, a squared error near 0.01), which is
    what `loss_weights` of `compile` is for.

    targets: the names of the heads that answer with one number in 0..1; "coverage" is the share
        of the image that its object covers.
    width: channels of the first convolution.
    units: features that the heads share.

    >>> model = multi_head((8, 8, 1), targets=("coverage", "sharpness"), width=4, units=8)
    >>> {name: head.shape for name, head in model.output.items()}
    {'label': (None, 10), 'coverage': (None, 1), 'sharpness': (None, 1)}
    """
    image = keras.Input(input_shape, name="image")
    x = trunk(image, width, units, name="trunk")  # [N, 128]
    x = layers.Dropout(dropout, name="dropout")(x)
    outputs = {
        "label": layers.Dense(classes, activation="softmax", dtype="float32", name="label")(x)
    }
    for target in targets:
        outputs[target] = layers.Dense(1, activation="sigmoid", dtype="float32", name=target)(x)
    return keras.Model(image, outputs, name="multi_head")

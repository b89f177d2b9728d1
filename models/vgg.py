"""VGG: 3x3 convolutions in blocks, each block half the size and twice the width.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition"
(arXiv:1409.1556), table 1, columns D (VGG16: 138,357,544 parameters) and E (VGG19: 143,667,240).
The layers carry the names of `keras.applications`, but for the head.
"""

from collections.abc import Iterator
from functools import partial

import keras
from keras import layers

from models.preprocessing import preprocessing


def vgg(
    name: str,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    classes: int = 1000,
    *,
    depths: tuple[int, ...],
    width: int = 64,
    units: int = 4096,
    dropout: float = 0.5,
    preprocess: str = "caffe",
    sequential: bool = False,
) -> keras.Model:
    """[N, H, W, C] of 0..255 -> label [N, classes].

    depths: convolutions of each block; H and W are halved after each.
    width: channels of the first block; they double block by block, up to 8 times.
    units: width of the two hidden dense layers.
    preprocess: a mode of `models.preprocessing`.
    sequential: a `keras.Sequential` of the same layers instead of a functional model.

    >>> vgg16((32, 32, 3), 10, width=4, units=8).output_shape
    (None, 10)
    >>> type(vgg19((32, 32, 3), 10, width=4, units=8, sequential=True)).__name__
    'Sequential'
    """
    image = keras.Input(input_shape, name="image")
    stack = [
        *preprocessing(preprocess, input_shape[-1]),
        *_convolutions(depths, width),
        *_classifier(units, dropout, classes),
    ]
    if sequential:
        return keras.Sequential([image, *stack], name=name)
    x = image
    for layer in stack:
        x = layer(x)
    return keras.Model(image, x, name=name)


def _convolutions(depths: tuple[int, ...], width: int) -> Iterator[layers.Layer]:
    """[N, H, W, C] -> [N, H / 2**blocks, W / 2**blocks, at most 8 * width]."""
    for block, depth in enumerate(depths, start=1):
        filters = width * min(2 ** (block - 1), 8)
        for conv in range(1, depth + 1):
            yield layers.Conv2D(
                filters, 3, padding="same", activation="relu", name=f"block{block}_conv{conv}"
            )
        yield layers.MaxPooling2D(2, name=f"block{block}_pool")


def _classifier(units: int, dropout: float, classes: int) -> Iterator[layers.Layer]:
    """[N, H, W, C] -> [N, classes]."""
    yield layers.Flatten(name="flatten")
    for dense in (1, 2):
        yield layers.Dense(units, activation="relu", name=f"fc{dense}")
        yield layers.Dropout(dropout, name=f"fc{dense}_dropout")
    yield layers.Dense(classes, activation="softmax", dtype="float32", name="label")


def _variant(name: str, depths: tuple[int, ...]) -> partial[keras.Model]:
    builder = partial(vgg, name, depths=depths)
    builder.__doc__ = vgg.__doc__
    return builder


vgg16 = _variant("vgg16", depths=(2, 2, 3, 3, 3))
vgg19 = _variant("vgg19", depths=(2, 2, 4, 4, 4))

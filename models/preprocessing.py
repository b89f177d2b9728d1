"""The first layers of every model: raw pixel values in, what the architecture was made for out.

They have no weights, so a model with them counts, saves and loads like one without.
"""

import keras
from keras import layers

_IMAGENET_MEAN_BGR = (103.939, 116.779, 123.68)
_IMAGENET_MEAN_RGB = (0.485, 0.456, 0.406)
_IMAGENET_STD_RGB = (0.229, 0.224, 0.225)


@keras.saving.register_keras_serializable("sluice")
class ReverseChannels(layers.Layer):  # type: ignore[misc]
    """[N, H, W, C] with its channels in the other order: RGB <-> BGR."""

    def call(self, image: keras.KerasTensor) -> keras.KerasTensor:
        return keras.ops.flip(image, axis=-1)


def preprocessing(mode: str, channels: int) -> list[layers.Layer]:
    """The layers that take [N, H, W, channels] of 0..255 to the range of `mode`.

    `mode` is "unit" (0..1), one of the conventions of `keras.applications`
    (`imagenet_utils.preprocess_input`), or "none":
        "tf"      -1..1
        "torch"   0..1, then ImageNet's mean and deviation per channel
        "caffe"   BGR, minus ImageNet's mean per channel
    An image that is not RGB gets the mean of the three channels' constants.
    Raises ValueError for another mode.

    >>> [layer.name for layer in preprocessing("caffe", channels=3)]
    ['rgb_to_bgr', 'rescale']
    """
    if mode == "none":
        return []
    if mode == "unit":
        return [layers.Rescaling(1 / 255, name="rescale")]
    if mode == "tf":
        return [layers.Rescaling(1 / 127.5, offset=-1.0, name="rescale")]
    if mode == "torch":
        constants = list(zip(_IMAGENET_MEAN_RGB, _IMAGENET_STD_RGB, strict=True))
        scale = [1 / (255 * std) for _, std in constants]
        return [_per_channel(scale, [-mean / std for mean, std in constants], channels)]
    if mode == "caffe":
        to_bgr = [ReverseChannels(name="rgb_to_bgr")] if channels == 3 else []
        return [*to_bgr, _per_channel([1.0] * 3, [-mean for mean in _IMAGENET_MEAN_BGR], channels)]
    raise ValueError(f"no preprocessing {mode!r}; known: none, unit, tf, torch, caffe")


def _per_channel(scale: list[float], offset: list[float], channels: int) -> layers.Layer:
    if channels != 3:
        return layers.Rescaling(sum(scale) / 3, offset=sum(offset) / 3, name="rescale")
    return layers.Rescaling(scale, offset=offset, name="rescale")


def preprocess(image: keras.KerasTensor, mode: str) -> keras.KerasTensor:
    """`preprocessing(mode)` applied to `image` [N, H, W, C]; the same shape out.

    >>> preprocess(keras.Input((8, 8, 3)), "unit").shape
    (None, 8, 8, 3)
    """
    x = image
    for layer in preprocessing(mode, image.shape[-1]):
        x = layer(x)
    return x

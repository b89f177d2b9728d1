"""ResNet: stages of bottleneck blocks, each adding to its own input.

He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition" (arXiv:1512.03385), table 1:
ResNet50 has 25,636,712 parameters, ResNet101 44,707,176, ResNet152 60,419,944.
The layers carry the names of `keras.applications`, but for the head.
"""

from functools import partial

import keras
from keras import layers

from models.preprocessing import preprocess as preprocessed

_BATCH_NORM_EPSILON = 1.001e-5


def resnet(
    name: str,
    input_shape: tuple[int, int, int] = (224, 224, 3),
    classes: int = 1000,
    *,
    depths: tuple[int, ...],
    width: int = 64,
    stem: str = "7x7",
    preprocess: str = "caffe",
) -> keras.Model:
    """[N, H, W, C] of 0..255 -> label [N, classes].

    depths: blocks of each stage; every stage after the first halves H and W.
    width: bottleneck channels of the first stage; they double stage by stage.
    stem: "7x7" divides H and W by 4. For small images "3x3" keeps them (section 4.2), and
        "3x3_pool" halves them, at a quarter of the work.
    preprocess: a mode of `models.preprocessing`.
    Raises ValueError for another stem.

    >>> resnet50((28, 28, 1), 10, depths=(1, 1), width=4, stem="3x3").output_shape
    (None, 10)
    """
    if stem not in _STEMS:
        raise ValueError(f"no stem {stem!r}; known: {', '.join(_STEMS)}")
    image = keras.Input(input_shape, name="image")  # [N, 224, 224, 3]
    x = preprocessed(image, preprocess)
    x = _STEMS[stem](x, width)  # [N, 56, 56, 64]
    for stage, depth in enumerate(depths):
        stride = 1 if stage == 0 else 2
        x = _residual_stage(x, width * 2**stage, depth, stride, name=f"conv{stage + 2}")
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)  # [N, 2048]
    label = layers.Dense(classes, activation="softmax", dtype="float32", name="label")(x)
    return keras.Model(image, label, name=name)


def _stem_7x7(x: keras.KerasTensor, filters: int) -> keras.KerasTensor:
    """[N, H, W, C] -> [N, H / 4, W / 4, filters]."""
    x = layers.ZeroPadding2D(3, name="conv1_pad")(x)
    x = _conv_bn(x, filters, 7, stride=2, padding="valid", name="conv1")
    x = layers.Activation("relu", name="conv1_relu")(x)
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    return layers.MaxPooling2D(3, strides=2, name="pool1_pool")(x)


def _stem_3x3(x: keras.KerasTensor, filters: int) -> keras.KerasTensor:
    """[N, H, W, C] -> [N, H, W, filters]."""
    x = _conv_bn(x, filters, 3, name="conv1")
    return layers.Activation("relu", name="conv1_relu")(x)


def _stem_3x3_pool(x: keras.KerasTensor, filters: int) -> keras.KerasTensor:
    """[N, H, W, C] -> [N, H / 2, W / 2, filters]."""
    x = _stem_3x3(x, filters)
    return layers.MaxPooling2D(2, name="pool1_pool")(x)


_STEMS = {"7x7": _stem_7x7, "3x3": _stem_3x3, "3x3_pool": _stem_3x3_pool}


def _residual_stage(
    x: keras.KerasTensor, filters: int, depth: int, stride: int, name: str
) -> keras.KerasTensor:
    """[N, H, W, C] -> [N, H / stride, W / stride, 4 * filters]."""
    x = _bottleneck(x, filters, stride, project=True, name=f"{name}_block1")
    for block in range(2, depth + 1):
        x = _bottleneck(x, filters, stride=1, project=False, name=f"{name}_block{block}")
    return x


def _bottleneck(
    x: keras.KerasTensor, filters: int, stride: int, project: bool, name: str
) -> keras.KerasTensor:
    """Figure 5, right: [N, H, W, C] -> [N, H / stride, W / stride, 4 * filters]."""
    shortcut = _conv_bn(x, 4 * filters, 1, stride, name=f"{name}_0") if project else x
    x = _conv_bn(x, filters, 1, stride, name=f"{name}_1")
    x = layers.Activation("relu", name=f"{name}_1_relu")(x)
    x = _conv_bn(x, filters, 3, name=f"{name}_2")
    x = layers.Activation("relu", name=f"{name}_2_relu")(x)
    x = _conv_bn(x, 4 * filters, 1, name=f"{name}_3")
    x = layers.Add(name=f"{name}_add")([shortcut, x])
    return layers.Activation("relu", name=f"{name}_out")(x)


def _conv_bn(
    x: keras.KerasTensor,
    filters: int,
    kernel: int,
    stride: int = 1,
    *,
    padding: str = "same",
    name: str,
) -> keras.KerasTensor:
    x = layers.Conv2D(filters, kernel, strides=stride, padding=padding, name=f"{name}_conv")(x)
    return layers.BatchNormalization(epsilon=_BATCH_NORM_EPSILON, name=f"{name}_bn")(x)


def _variant(name: str, depths: tuple[int, ...]) -> partial[keras.Model]:
    builder = partial(resnet, name, depths=depths)
    builder.__doc__ = resnet.__doc__
    return builder


resnet50 = _variant("resnet50", depths=(3, 4, 6, 3))
resnet101 = _variant("resnet101", depths=(3, 4, 23, 3))
resnet152 = _variant("resnet152", depths=(3, 8, 36, 3))

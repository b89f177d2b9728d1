"""Architectures: one file per family, every one built by `build(name, ...)`.

A model takes raw pixel values (float32, 0..255) under the names of its `keras.Input`s and answers
under the names of its heads: one tensor from the last layer, or a dict of head name -> tensor.
"""

import difflib
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import keras

from models.cnn import cnn_functional, cnn_sequential
from models.digit_sum import digit_sum
from models.gan import gan
from models.inception_v3 import inception_v3
from models.mlp import mlp
from models.multi_head import multi_head
from models.resnet import resnet50, resnet101, resnet152
from models.two_view import two_view
from models.unet import unet
from models.vgg import vgg16, vgg19
from models.vit import vit_b16

MODELS: dict[str, Callable[..., keras.Model]] = {
    "mlp": mlp,
    "cnn_sequential": cnn_sequential,
    "cnn_functional": cnn_functional,
    "vgg16": vgg16,
    "vgg19": vgg19,
    "resnet50": resnet50,
    "resnet101": resnet101,
    "resnet152": resnet152,
    "inception_v3": inception_v3,
    "unet": unet,
    "vit_b16": vit_b16,
    "gan": gan,
    "two_view": two_view,
    "multi_head": multi_head,
    "digit_sum": digit_sum,
}


class UnknownModel(ValueError):
    """There is no model of this name; the message lists the known ones, nearest first."""


class UnknownSize(ValueError):
    """The builder takes no argument of this name; the message lists the known ones."""


def build(
    name: str,
    input_shape: tuple[int, ...] | None = None,
    classes: int | None = None,
    **size: Any,
) -> keras.Model:
    """The model of this name; with the name alone, at its published full size.

    input_shape: of one input, without the batch: (height, width, channels).
    classes: the width of the classification heads.
    size: what else the family's builder takes (`sizes(name)` lists it).
    Raises UnknownModel, UnknownSize, and ValueError for a size that cannot be built.

    >>> build("vgg16", (32, 32, 3), 10, width=4, units=8).output_shape
    (None, 10)
    """
    known = sizes(name)
    for key in size:
        if key not in known:
            raise UnknownSize(f"{name} has no size {key!r}; known: {_listed(known, key)}")
    asked = {"input_shape": input_shape, "classes": classes}
    given = {key: value for key, value in asked.items() if value is not None}
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_last")  # as input_shape is, in every keras.json
    try:
        return MODELS[name](**given, **size)
    finally:
        keras.config.set_image_data_format(before)


def sizes(name: str) -> dict[str, Any]:
    """The arguments of a model's builder, with their defaults: its published full size.

    Raises UnknownModel.

    >>> sizes("mlp")
    {'input_shape': (28, 28, 1), 'classes': 10, 'units': (512, 256), 'dropout': 0.2}
    """
    if name not in MODELS:
        raise UnknownModel(f"no model {name!r}; known: {_listed(MODELS, name)}")
    parameters = inspect.signature(MODELS[name]).parameters
    return {key: parameter.default for key, parameter in parameters.items()}


def parts(model: keras.Model) -> dict[str, keras.Model]:
    """What of a model is published, by name: the model itself, or each player of a `gan`.

    >>> list(parts(build("mlp", (8, 8, 1)))), list(parts(build("gan", (8, 8, 1), width=4)))
    (['mlp'], ['generator', 'discriminator'])
    """
    return dict(getattr(model, "parts", {model.name: model}))


def heads(model: keras.Model) -> dict[str, keras.KerasTensor]:
    """A model's outputs by head name, each the name of the layer that makes it.

    >>> {name: head.shape for name, head in heads(build("multi_head", (8, 8, 1), 3)).items()}
    {'coverage': (None, 1), 'label': (None, 3)}
    """
    # Only a functional model keeps `output_names`; a stack's one head is its last layer.
    names = getattr(model, "output_names", [model.layers[-1].name])
    return dict(zip(names, model.outputs, strict=True))


def _listed(known: Iterable[str], near: str) -> str:
    names = list(known)
    # sluice.wire.nearest is out of reach here: models stand on Keras alone.
    return ", ".join(difflib.get_close_matches(near, names, len(names), cutoff=0))

"""What a model's inputs and outputs are, as far as the model itself says."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import keras

IMAGE, NUMBERS, TEXT = INPUT_KINDS = ("image", "numbers", "text")

# The kinds of output, each the name it gets where Keras lost its own.
LABEL, LOGITS, SCORE, MASK, PICTURE, VALUES = (
    "label",
    "logits",
    "score",
    "mask",
    "picture",
    "output",
)

PLANES = (PICTURE, MASK)
OUTPUT_KINDS = (*PLANES, NUMBERS)  # which of them an output is can be said

_IMAGE_CHANNELS = (1, 3)
# What files' pixels, 0..255, are given as. int8 ends at 127, and uint16 holds 16-bit pictures too:
# of these the model does not tell.
_PIXELS = ("uint8", "int16", "int32", "int64")
# What keras.applications' networks were trained on, by the name that they give themselves:
# https://keras.io/api/applications, preprocess_input of each.
_APPLICATIONS = {
    "imagenet-caffe": ("vgg16", "vgg19", "resnet50", "resnet101", "resnet152"),
    "scale11": (
        "resnet50v2",
        "resnet101v2",
        "resnet152v2",
        "mobilenet_",
        "mobilenetv2_",
        "inception_v3",
        "inception_resnet_v2",
        "xception",
        "nasnet",
    ),
    "imagenet-torch": ("densenet121", "densenet169", "densenet201"),
}
# Those that have their preprocessing inside.
_SCALED_INSIDE = ("efficientnet", "mobilenetv3", "convnext", "regnet", "resnet_rs")
# Layers and operations that bring pixels to a range, where they are the first to see them.
_SCALING = ("Rescaling", "Normalization", "TrueDivide", "Divide", "Subtract", "Multiply", "Add")
_REORDERING = ("GetItem", "Stack")  # of channels, as imagenet-caffe does before it


@dataclass(frozen=True)
class Tensor:
    """An input or output as the model has it; shape without the batch, None for any size.
    made_up: whether Keras called it so, and nobody chose the name.

    >>> Tensor("image", (None, None, 3), "float32").shape
    (None, None, 3)
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    made_up: bool = False

    @property
    def own_name(self) -> str:
        """The one that somebody chose, or "".

        >>> Tensor("dense_3", (2,), "float32", made_up=True).own_name
        ''
        """
        return "" if self.made_up else self.name

    @property
    def sizes(self) -> str:
        """In words, with the batch.

        >>> Tensor("image", (None, 8, 3), "float32").sizes
        '[N,?,8,3]'
        """
        return f"[{','.join(['N', *('?' if size is None else str(size) for size in self.shape)])}]"


def input_kind(tensor: Tensor) -> str:
    """image, numbers or text.

    >>> input_kind(Tensor("x", (28, 28, 1), "float32")), input_kind(Tensor("x", (8,), "float32"))
    ('image', 'numbers')
    """
    if tensor.dtype == "string":
        return TEXT
    return IMAGE if len(tensor.shape) == 3 and tensor.shape[-1] in _IMAGE_CHANNELS else NUMBERS


def preprocessing(model: keras.Model, pictures: Sequence[Tensor]) -> tuple[str, str] | None:
    """What pixels of 0..255 must go through before this model, and how it is known.

    pictures: its inputs that are some, one at least. None where the model does not tell.

    >>> preprocessing(keras.Sequential(), [Tensor("image", (8, 8, 3), "uint8")])
    ('raw', 'it takes them as uint8')
    """
    if all(each.dtype in _PIXELS for each in pictures):
        return "raw", f"it takes them as {pictures[0].dtype}"
    layers = list(model._flatten_layers())
    if scaling := _first_scaling(model, layers):
        return "raw", f"{scaling} is inside the model"
    for layer in layers:
        name = str(layer.name).lower()
        for mode, families in _APPLICATIONS.items():
            if isinstance(layer, keras.Model) and _is_one_of(name, families):
                return mode, f"it is built on keras.applications' {layer.name}"
    return None


def is_application(model: keras.Model) -> bool:
    """Whether it is one of keras.applications' networks itself, by the name that it has then.

    >>> is_application(keras.Sequential(name="vgg16")), is_application(keras.Sequential())
    (True, False)
    """
    name = str(model.name).lower()
    return name.startswith(_SCALED_INSIDE) or any(
        _is_one_of(name, families) for families in _APPLICATIONS.values()
    )


def head_kind(tensor: Tensor, activation: str | None, picture: Sequence[int | None]) -> str:
    """What an output is: by its shape, and the activation that it comes out of.

    picture: [H, W, C] of the first image input; () where there is none.

    >>> head_kind(Tensor("dense", (3,), "float32"), "softmax", ())
    'label'
    >>> head_kind(Tensor("best", (3,), "string"), "softmax", ())
    'output'
    """
    if "float" not in tensor.dtype:
        return VALUES
    if len(tensor.shape) == 3:
        return _plane_kind(tensor.shape, activation, picture)
    if len(tensor.shape) != 1:
        return VALUES
    if activation == "softmax":
        return LABEL
    if activation == "sigmoid":
        return SCORE if tensor.shape[0] == 1 else LABEL
    return LOGITS if (tensor.shape[0] or 1) > 1 and activation == "linear" else VALUES


def may_be_picture(tensor: Tensor) -> bool:
    """Whether it has the form of one: height, width, and grey or three colours.

    >>> may_be_picture(Tensor("decoded", (8, 8, 3), "float32"))
    True
    """
    return len(tensor.shape) == 3 and tensor.shape[-1] in _IMAGE_CHANNELS


def _plane_kind(
    shape: Sequence[int | None], activation: str | None, picture: Sequence[int | None]
) -> str:
    """Of [H, W, C]. What is grey or has three colours, each of 0..1 for itself, is the picture that
    an autoencoder makes sooner than three classes that do not exclude each other; one chance for
    each pixel of a picture in colours is sooner a mask than a grey picture."""
    channels, bounded = shape[-1], activation in ("sigmoid", "tanh")
    if [*shape[:2]] != [*picture[:2]]:
        drawn = bounded and channels in ((3,) if picture else _IMAGE_CHANNELS)
        return PICTURE if drawn else VALUES
    if activation == "softmax":
        return MASK
    if channels not in _IMAGE_CHANNELS:
        return MASK if activation in ("sigmoid", "linear", None) else VALUES
    of_colours = channels == 1 and picture[-1] == 3
    return MASK if of_colours and activation == "sigmoid" else PICTURE


def told_to_train(model: keras.Model) -> list[str]:
    """The names of the layers that a functional model calls with `training=True`, as its builder
    said, and not the layer's own `call`, which of layers that augment pictures has that default.

    Keras does so when the model is called by itself, and neither in `predict` nor where it is
    called with `training=False`.

    >>> image = keras.Input((4,))
    >>> dropout = keras.layers.Dropout(0.5, name="dropout")
    >>> told_to_train(keras.Model(image, dropout(image, training=True)))
    ['dropout']
    >>> picture = keras.Input((8, 8, 3))
    >>> told_to_train(keras.Model(picture, keras.layers.RandomFlip()(picture)))
    []
    """
    return [
        layer.name
        for layer in model._flatten_layers()
        if any(node.arguments.kwargs.get("training") is True for node in layer._inbound_nodes)
        and not _trains_by_default(layer)
    ]


def _trains_by_default(layer: Any) -> bool:
    training = signature(layer.call).parameters.get("training")
    return training is not None and training.default is True


def _first_scaling(model: keras.Model, layers: list[Any]) -> str | None:
    """The name of what scales the pixels, if that is among the first things done to them."""
    for layer in layers:
        if type(layer).__name__ in ("Rescaling", "Normalization"):
            return f"layer {layer.name!r} ({type(layer).__name__})"
    inputs = {id(tensor) for tensor in getattr(model, "inputs", None) or []}
    for operation in getattr(model, "operations", ()):
        first = [
            node
            for node in operation._inbound_nodes
            if any(id(tensor) in inputs for tensor in node.input_tensors)
        ]
        if first and type(operation).__name__ in _SCALING:
            return f"the operation {operation.name!r}"
        if first and type(operation).__name__ in _REORDERING:
            inputs |= {id(tensor) for node in first for tensor in node.output_tensors}
    return None


def _is_one_of(name: str, families: Iterable[str]) -> bool:
    """A family that ends in _ has its size after it, as mobilenetv2_1.00_160 has."""
    return any(name.startswith(each) if each.endswith("_") else name == each for each in families)


def layer_activation(model: keras.Model, place: int) -> str | None:
    """The activation's name, of the layer that gives the output at `place`; of a model whose layers
    have no order that Keras knows, of the last one that it has.

    >>> layer_activation(keras.Sequential([keras.layers.Dense(2, activation="tanh")]), 0)
    'tanh'
    """
    layer = operation_of(model, place)
    if layer is None:
        layer = last_layer(model)
    while isinstance(layer, keras.Model) and layer.layers:
        layer = layer.layers[-1]
    if isinstance(layer, keras.layers.Softmax):
        return "softmax"
    return getattr(getattr(layer, "activation", None), "__name__", None)


def operation_of(model: keras.Model, place: int) -> Any | None:
    """The layer, operation or inner model that gives the output at `place`; None where the model's
    own `call` does.

    >>> image = keras.Input((4,))
    >>> operation_of(keras.Model(image, keras.layers.Dense(2, name="dense")(image)), 0).name
    'dense'
    """
    outputs = getattr(model, "outputs", None)
    history = getattr(outputs[place], "_keras_history", None) if outputs else None
    return history.operation if history else None


def last_layer(model: keras.Model) -> Any:
    """The last that it has, those of inner models counted; None where it has none.

    >>> last_layer(keras.Sequential([keras.layers.Dense(2, name="dense")])).name
    'dense'
    """
    layers = [layer for layer in model._flatten_layers() if not isinstance(layer, keras.Model)]
    return layers[-1] if layers else None

"""Preprocessing and names put round a model, so that it keeps the contract (docs/contract.md)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from models.preprocessing import preprocessing
from training.adopting.guessing import Tensor
from training.errors import CannotAdopt

MODES = {  # --preprocess: models.preprocessing's mode
    "raw": "none",
    "scale01": "unit",
    "scale11": "tf",
    "imagenet-caffe": "caffe",
    "imagenet-torch": "torch",
}
Preprocess = str | Callable[[Any], Any]  # a key of MODES, or a function of [N, H, W, C]


def inputs_of(model: keras.Model) -> list[Tensor]:
    """The model's inputs, in the order in which it takes them.

    Raises CannotAdopt for one that was never built, or has no free batch axis.
    """
    if getattr(model, "inputs", None):
        found = [(each.name, tuple(each.shape), str(each.dtype)) for each in model.inputs]
    else:
        found = [(name, shape, "float32") for name, shape in _built_shapes(model).items()]
    for name, shape, _ in found:
        if not shape or shape[0] is not None:
            raise CannotAdopt(
                f"input {name!r} is {list(shape)}: a served model takes any number of rows, so its "
                f"first axis must be free; build it again with keras.Input(shape) and no batch "
                f"size, and copy the weights"
            )
    return [Tensor(name, shape[1:], dtype) for name, shape, dtype in found]


def outputs_of(model: keras.Model, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The model's outputs, flat, each under Keras's name or its key in a dict."""
    outputs = _call(model, [keras.KerasTensor((None, *each.shape), each.dtype) for each in inputs])
    return [
        Tensor(name, tuple(output.shape[1:]), str(output.dtype))
        for name, output in _flat(model, outputs).items()
    ]


def wrap(
    model: keras.Model,
    inputs: Mapping[str, Tensor],
    preprocess: Mapping[str, Preprocess],
    heads: Sequence[str],
) -> keras.Model:
    """A functional model round `model`.

    inputs: by the name that each is to have, in the model's order.
    preprocess: of those inputs that are images; pixels of 0..255 come in.
    heads: the names of the outputs, in the model's order. Half precision comes out as float32.
    Raises CannotAdopt where the two do not go together.
    """
    given = [keras.Input(each.shape, dtype=each.dtype, name=name) for name, each in inputs.items()]
    try:
        prepared = [
            _prepared(tensor, preprocess[tensor.name]) if tensor.name in preprocess else tensor
            for tensor in given
        ]
        outputs = _flat(model, _call(model, prepared)).values()
    except CannotAdopt:
        raise
    except Exception as error:  # Keras and the user's own code raise what they like
        raise CannotAdopt(
            f"the model cannot be called on {', '.join(map(_described, given))} "
            f"({type(error).__name__}: {' '.join(str(error).split())[:300]})"
        ) from error
    named = {
        name: keras.ops.cast(output, "float32")
        if output.dtype in ("float16", "bfloat16")
        else output
        for name, output in zip(heads, outputs, strict=True)
    }
    return keras.Model(given, named, name="adopted")


def _prepared(image: keras.KerasTensor, preprocess: Preprocess) -> keras.KerasTensor:
    if callable(preprocess):
        return keras.layers.Lambda(preprocess, name=f"preprocess_{image.name}")(image)
    for layer in preprocessing(MODES[preprocess], image.shape[-1]):
        layer.name = f"{layer.name}_{image.name}"  # of several inputs, each has its own
        image = layer(image)
    return image


def _call(model: keras.Model, tensors: Sequence[Any]) -> Any:
    """In the shape in which the model takes its inputs: one, a list or a dict."""
    if getattr(model, "inputs", None):
        structure = getattr(model, "_inputs_struct", None)
        if structure is None:  # a Sequential's
            return model(tensors[0], training=False)
        return model(keras.tree.pack_sequence_as(structure, list(tensors)), training=False)
    return model(*tensors)


def _flat(model: keras.Model, outputs: Any) -> dict[str, Any]:
    """Outputs by name: a dict's keys, else Keras's own names, else their place."""
    if isinstance(outputs, dict) and all(hasattr(each, "shape") for each in outputs.values()):
        return dict(outputs)
    flat = keras.tree.flatten(outputs)
    names = getattr(model, "output_names", None)
    if names is None and getattr(model, "layers", None) and len(flat) == 1:
        names = [model.layers[-1].name]
    if names is None or len(names) != len(flat) or len({*names}) != len(flat):
        names = [f"output_{place}" for place in range(len(flat))]
    return dict(zip(names, flat, strict=True))


def _built_shapes(model: keras.Model) -> dict[str, tuple[int | None, ...]]:
    """Of a subclassed model: the shapes it was built with, by the name of `call`'s argument."""
    built = model.get_build_config() or {}
    shapes = built.get("shapes_dict") or {"inputs": built.get("input_shape")}
    if not model.built or any(shape is None for shape in shapes.values()):
        raise CannotAdopt(
            f"{type(model).__name__} does not say what it takes; call it once on a batch, as in "
            f"model(np.zeros((1, 28, 28, 1))), before it is saved or published"
        )
    # The batch that it was called on was one of many.
    return {name.removesuffix("_shape"): (None, *shape[1:]) for name, shape in shapes.items()}


def _described(tensor: keras.KerasTensor) -> str:
    sizes = ",".join("?" if size is None else str(size) for size in tensor.shape)
    return f"{tensor.name} {tensor.dtype}[{sizes}]"

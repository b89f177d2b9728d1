"""Preprocessing and names put round a model, so that it keeps the contract (docs/contract.md)."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import keras
import tensorflow as tf

from models.preprocessing import preprocessing
from training.adopting.guessing import Tensor
from training.adopting.naming import is_made_up_input, is_made_up_output
from training.adopting.reading import first_line
from training.errors import CannotAdopt
from training.explaining.lending import lent

MODES = {  # --preprocess: models.preprocessing's mode
    "raw": "none",
    "scale01": "unit",
    "scale11": "tf",
    "imagenet-caffe": "caffe",
    "imagenet-torch": "torch",
}
DENSE = "a request carries dense tensors; densify it inside the model (keras.ops.convert_to_tensor)"
_FUNCTIONAL = (
    "; if it takes more than that, publish keras.Model(inputs, model(…)), with a keras.Input for "
    "each"
)
_ANY_SIDE = 64  # of a picture of any size
# What `_built_shapes` and `_leaves` call what `call` takes by its place.
_UNNAMED = re.compile(r"inputs(_\d+)*")
Preprocess = str | Callable[[Any], Any]  # a key of MODES, or a function of [N, H, W, C]


def inputs_of(model: keras.Model) -> list[Tensor]:
    """The model's inputs, in the order in which it takes them.

    Raises CannotAdopt for one that was never built, or has no free batch axis, or is sparse.
    """
    if getattr(model, "inputs", None):
        found = [
            Tensor(
                each.name, tuple(each.shape), str(each.dtype), is_made_up_input(model, each.name)
            )
            for each in model.inputs
        ]
        if sparse := [each.name for each in model.inputs if _is_sparse(each)]:
            raise CannotAdopt(f"input {sparse[0]!r} is sparse or ragged: {DENSE}")
    else:
        found = [
            Tensor(name, shape, "float32", made_up=bool(_UNNAMED.fullmatch(name)))
            for name, shape in _leaves(_built_shapes(model))
        ]
    for each in found:
        if not each.shape or each.shape[0] is not None:
            raise CannotAdopt(
                f"input {each.name!r} is {list(each.shape)}: a served model takes any number "
                f"of rows, so its first axis must be free; build it again with keras.Input(shape) "
                f"and no batch size, and copy the weights"
            )
    return [replace(each, shape=each.shape[1:]) for each in found]


def outputs_of(model: keras.Model, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The model's outputs, flat, in the order of `model.outputs`, each under Keras's name or its
    key in a dict.

    Raises CannotAdopt where the model cannot be called, or an output has no row for each of the
    input's.
    """
    flat = answers(model, [keras.KerasTensor((None, *each.shape), each.dtype) for each in inputs])
    for name, output in flat.items():
        if _is_sparse(output):
            raise CannotAdopt(f"output {name!r} is sparse or ragged: {DENSE}")
        if output.shape[:1] != (None,):
            raise CannotAdopt(
                f"output {name!r} is {list(output.shape)}: expected one row for each row of the "
                f"input, so its first axis must be the batch's"
            )
    return [
        Tensor(
            name,
            tuple(output.shape[1:]),
            str(output.dtype),
            is_made_up_output(model, place, name),
        )
        for place, (name, output) in enumerate(flat.items())
    ]


def answers(model: keras.Model, tensors: Sequence[Any]) -> dict[str, Any]:
    """The model's outputs on its inputs, in its order, flat and by name. Raises CannotAdopt.

    >>> image = keras.Input((4,))
    >>> [*answers(keras.Model(image, {"sum": keras.ops.sum(image, 1)}), [keras.Input((4,))])]
    ['sum']
    """
    return _flat(model, _call(model, tensors))


def wrap(
    model: keras.Model,
    inputs: Mapping[str, Tensor],
    preprocess: Mapping[str, Preprocess],
    heads: Sequence[str],
    *,
    alone: bool = False,
) -> keras.Model:
    """A functional model round `model`.

    inputs: by the name that each is to have, in the model's order; a picture that the model takes
        without a channel has one here.
    preprocess: of those inputs that are images; pixels of 0..255 come in.
    heads: the names of the outputs, in the model's order. Half precision comes out as float32.
    alone: whether the model is to be asked for each row by itself.
    Raises CannotAdopt where the two do not go together.
    """
    given = [keras.Input(each.shape, dtype=each.dtype, name=name) for name, each in inputs.items()]
    prepared = [
        _prepared(tensor, preprocess[tensor.name]) if tensor.name in preprocess else tensor
        for tensor in given
    ]
    taken = [
        keras.ops.squeeze(tensor, -1) if len(tensor.shape) > len(own.shape) + 1 else tensor
        for tensor, own in zip(prepared, inputs_of(model), strict=True)
    ]
    # Keras takes the model for a layer of the new one, none of which may be called as an input is.
    with lent(model, name=f"{model.name}_inside") if model.name in inputs else nullcontext():
        outputs = Alone(model)(taken) if alone else answers(model, taken).values()
        named = _in_float32(heads, outputs)
        return keras.Model(given, named, name="adopted")


class Alone(keras.layers.Layer):  # type: ignore[misc]
    """`model` on each row by itself, of however many there are; takes and gives flat lists.

    >>> image = keras.Input((4,))
    >>> [apart] = Alone(keras.Model(image, keras.ops.softmax(image, 0)))([keras.ops.zeros((2, 4))])
    >>> apart.numpy().tolist()
    [[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]]
    """

    def __init__(self, model: keras.Model) -> None:
        super().__init__(name=f"{model.name}_alone")
        self.model = model

    def call(self, tensors: list[Any]) -> list[Any]:
        """[N, ...] each."""
        outputs = self.compute_output_spec(tensors)
        shapes = [tf.TensorSpec(each.shape[1:], each.dtype) for each in outputs]
        found: list[Any] = tf.map_fn(self._row, tensors, fn_output_signature=shapes)
        return found

    def compute_output_spec(self, tensors: list[Any]) -> list[Any]:
        """What it gives, without its numbers."""
        given = [keras.KerasTensor((None, *each.shape[1:]), each.dtype) for each in tensors]
        return [*answers(self.model, given).values()]

    def _row(self, row: list[Any]) -> list[Any]:
        outputs = answers(self.model, [each[tf.newaxis] for each in row])
        return [each[0] for each in outputs.values()]


def _in_float32(heads: Sequence[str], outputs: Iterable[Any]) -> dict[str, Any]:
    return {
        name: keras.ops.cast(output, "float32")
        if output.dtype in ("float16", "bfloat16")
        else output
        for name, output in zip(heads, outputs, strict=True)
    }


def _prepared(image: keras.KerasTensor, preprocess: Preprocess) -> keras.KerasTensor:
    if callable(preprocess):
        return _prepared_by(preprocess, image)
    for layer in preprocessing(MODES[preprocess], image.shape[-1]):
        layer.name = f"{layer.name}_{image.name}"  # of several inputs, each has its own
        image = layer(image)
    return image


def _prepared_by(function: Callable[[Any], Any], image: keras.KerasTensor) -> keras.KerasTensor:
    name = getattr(function, "__name__", "the function")
    try:
        # Here, as a Lambda layer would hide what the function raises.
        function(keras.ops.zeros([1, *(size or _ANY_SIDE for size in image.shape[1:])]))
        return keras.layers.Lambda(function, name=f"preprocess_{image.name}")(image)
    except Exception as error:  # it is the user's code: whatever it raises
        raise CannotAdopt(
            f"preprocessing by {name} fails on {_described(image)} ({type(error).__name__}: "
            f"{first_line(error)}); write it with keras.ops or TensorFlow, from [N, H, W, C] to "
            f"the same"
        ) from error


def _call(model: keras.Model, tensors: Sequence[Any]) -> Any:
    """The model's outputs. Raises CannotAdopt."""
    try:
        return model(*_arguments(model, tensors), training=False)
    except Exception as error:  # Keras and the user's own code raise what they like
        functional = "" if getattr(model, "inputs", None) else _FUNCTIONAL
        raise CannotAdopt(
            f"the model cannot be called on {', '.join(map(_described, tensors))} "
            f"({type(error).__name__}: {first_line(error)}){functional}"
        ) from error


def _arguments(model: keras.Model, tensors: Sequence[Any]) -> list[Any]:
    """In the shape in which the model takes its inputs: one, a list or a dict."""
    if getattr(model, "inputs", None):
        structure = getattr(model, "_inputs_struct", None)
        if structure is None:  # a Sequential's
            return [tensors[0]]
        return [keras.tree.pack_sequence_as(structure, list(tensors))]
    remaining = iter(tensors)
    return [_packed(shapes, remaining) for shapes in _built_shapes(model).values()]


def _flat(model: keras.Model, outputs: Any) -> dict[str, Any]:
    """Outputs by name: a dict's keys, else Keras's own names, else their place.

    In the order of keras.tree, which is by key and not as the dict was written.
    """
    if isinstance(outputs, dict):
        return {
            "_".join(map(str, path)): output
            for path, output in keras.tree.flatten_with_path(outputs)
        }
    flat = keras.tree.flatten(outputs)
    names = getattr(model, "output_names", None)
    if names is None and getattr(model, "layers", None) and len(flat) == 1:
        names = [model.layers[-1].name]
    if names is None or len(names) != len(flat) or len({*names}) != len(flat):
        names = [f"output_{place}" for place in range(len(flat))]
    return dict(zip(names, flat, strict=True))


def _built_shapes(model: keras.Model) -> dict[str, Any]:
    """Of a subclassed model: the shapes it was built with, by the name of `call`'s argument; a
    shape, or a list or dict of them."""
    built = model.get_build_config() or {}
    shapes = built.get("shapes_dict") or {"inputs": built.get("input_shape")}
    if not model.built or any(shape is None for shape in shapes.values()):
        raise CannotAdopt(
            f"{type(model).__name__} does not say what it takes; call it once on a batch, as in "
            f"model(np.zeros((1, 28, 28, 1))), before it is saved or published"
        )
    return {name.removesuffix("_shape"): shape for name, shape in shapes.items()}


def _leaves(shapes: Any, name: str = "inputs") -> list[tuple[str, tuple[int | None, ...]]]:
    """Each shape with its name, in the order in which `_packed` takes them."""
    if _is_shape(shapes):
        # The batch that the model was called on was one of many.
        return [(name, (None, *shapes[1:]))]
    named = shapes.items() if isinstance(shapes, dict) else enumerate(shapes)
    return [
        leaf
        for key, each in named
        for leaf in _leaves(each, key if isinstance(key, str) else f"{name}_{key}")
    ]


def _packed(shapes: Any, tensors: Iterator[Any]) -> Any:
    if _is_shape(shapes):
        return next(tensors)
    if isinstance(shapes, dict):
        return {key: _packed(each, tensors) for key, each in shapes.items()}
    return [_packed(each, tensors) for each in shapes]


def _is_shape(shapes: Any) -> bool:
    return not isinstance(shapes, dict) and all(
        size is None or isinstance(size, int) for size in shapes
    )


def _is_sparse(tensor: keras.KerasTensor) -> bool:
    return bool(getattr(tensor, "sparse", False) or getattr(tensor, "ragged", False))


def _described(tensor: keras.KerasTensor) -> str:
    sizes = ",".join("?" if size is None else str(size) for size in tensor.shape)
    return f"{tensor.name} {tensor.dtype}[{sizes}]"

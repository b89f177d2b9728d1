"""Names of inputs and outputs where Keras has lost them, or made them up.

Keras 3 calls a tensor after nothing (`keras_tensor_12`), an input in a file after its layer
(`input_layer_1`); Keras 2 called one `input_1`, and a Sequential's after its first layer
(`conv2d_input`). Both call an output after its layer's class (`dense_3`). Such a name tells a
client nothing and changes with every run that builds the model, so what the tensor is stands in its
place. And what it is stands before a name that Python cannot call an argument by, which TensorFlow
does: `class`, `1st`.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from keyword import iskeyword
from typing import Any

import keras

from sluice.wire.contract import CLASSES_SUFFIX, SCORES_SUFFIX
from training.adopting.guessing import last_layer, operation_of

_MADE_UP_INPUT = re.compile(r"(keras_tensor|input_layer)(_\d+)?|input_\d+")
_FIRST_LAYERS = "_input"  # what Keras 2 put after its name
_MODELS = ("functional", "model")  # Keras 3's name for a model of its functional way, and Keras 2's
_TENSORFLOWS = ("self",)  # arguments of its own beside a signature's
_NOT_WORDS = re.compile(r"\W+", re.ASCII)


def name_inputs(given: Iterable[tuple[str, str]]) -> list[str]:
    """(its own name, kind) of each input -> what it is called; "" for one that Keras made up.

    >>> name_inputs([("", "image")])
    ['image']
    >>> name_inputs([("left", "image"), ("", "numbers"), ("1st", "image")])
    ['left', 'numbers', 'image_1st']
    >>> name_inputs([("A", "numbers"), ("a", "numbers")])  # one to TensorFlow
    ['A', 'a_2']
    """
    return _named(given, same=str.lower)


def name_heads(given: Iterable[tuple[str, str]]) -> list[str]:
    """(its own name, kind) of each output -> what it is called; "" for one that Keras made up.

    >>> name_heads([("", "label"), ("", "label"), ("age", "number")])
    ['label', 'label_2', 'age']
    >>> name_heads([("mood", "label"), ("mood_scores", "output")])  # which is to be mood's own
    ['mood', 'output_mood_scores']
    """
    given = [*given]
    names = _named(given)
    taken = {f"{name}{suffix}" for name in names for suffix in (CLASSES_SUFFIX, SCORES_SUFFIX)}
    return [
        _free(f"{kind}_{name}", names) if name in taken else name
        for name, (_, kind) in zip(names, given, strict=True)
    ]


def is_made_up_input(model: keras.Model, name: str) -> bool:
    """Whether Keras called a functional model's input so, and nobody chose it.

    >>> user = keras.Input((4,), name="user_input")
    >>> is_made_up_input(keras.Model(user, keras.layers.Dense(2, name="user")(user)), "user_input")
    False
    >>> first = keras.Input((4,), name="dense_1_input")
    >>> rated = keras.Sequential([first, keras.layers.Dense(2, name="dense_1")])
    >>> is_made_up_input(rated, "dense_1_input")
    True
    """
    return bool(_MADE_UP_INPUT.fullmatch(name)) or any(
        name == f"{layer.name}{_FIRST_LAYERS}"
        for layer in _taking_input(model)
        if isinstance(model, keras.Sequential) or _is_made_up(layer)
    )


def is_made_up_output(model: keras.Model, place: int, name: str) -> bool:
    """Whether Keras called the output at `place` so, and nobody chose it.

    >>> image = keras.Input((4,))
    >>> sliced = keras.Model(image, image[:, 0])
    >>> is_made_up_output(sliced, 0, sliced.operations[-1].name)
    True
    >>> car = keras.Model(image, keras.layers.Dense(2, name="model")(image))
    >>> is_made_up_output(car, 0, "model")
    False
    """
    layer = operation_of(model, place) or last_layer(model)
    if layer is not None and name == layer.name:
        return _is_made_up(layer)
    return name == f"output_{place}"


def _taking_input(model: keras.Model) -> Iterator[Any]:
    """The layers that the model's inputs go to."""
    if isinstance(model, keras.Sequential):
        yield from model.layers[:1]
    inputs = {id(tensor) for tensor in model.inputs}
    for operation in getattr(model, "operations", ()):
        taken = (tensor for node in operation._inbound_nodes for tensor in node.input_tensors)
        if any(id(tensor) in inputs for tensor in taken):
            yield operation


def _is_made_up(layer: Any) -> bool:
    """Whether a layer or operation of Keras's is called after its class."""
    kind = type(layer)
    if kind.__module__.partition(".")[0] != "keras":
        return False
    if isinstance(layer, keras.layers.InputLayer):
        return bool(_MADE_UP_INPUT.fullmatch(layer.name))
    made_up = [_in_snake_case(kind.__name__), *(_MODELS if isinstance(layer, keras.Model) else ())]
    return re.sub(r"_\d+$", "", layer.name) in made_up


def _in_snake_case(name: str) -> str:
    """As Keras does for a layer's name.

    >>> _in_snake_case("Conv2DTranspose"), _in_snake_case("ReLU"), _in_snake_case("GRU")
    ('conv2d_transpose', 're_lu', 'gru')
    """
    words = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", words).lower()


def _named(given: Iterable[tuple[str, str]], same: Callable[[str], str] = str) -> list[str]:
    """same: what two names have in common that may not both be there."""
    names: list[str] = []
    for own, kind in given:
        words = _NOT_WORDS.sub("_", _plain(own)).strip("_")
        name = words or kind
        names.append(_free(name if _is_argument(name) else f"{kind}_{name}", names, same))
    return names


def _is_argument(name: str) -> bool:
    return name.isidentifier() and not iskeyword(name) and name not in _TENSORFLOWS


def _plain(name: str) -> str:
    """Letters without their accents, where they have any."""
    parts = unicodedata.normalize("NFKD", name)
    return "".join(part for part in parts if not unicodedata.combining(part))


def _free(name: str, taken: list[str], same: Callable[[str], str] = str) -> str:
    number, free = 1, name
    while same(free) in map(same, taken):
        number += 1
        free = f"{name}_{number}"
    return free

"""Deciding what a model is: what the user said of it, what it says itself, and what was guessed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import keras

from training.adopting import guessing, naming, wrapping
from training.adopting.guessing import Tensor
from training.adopting.wrapping import Preprocess
from training.data.heads import Chance, Classes, Head, Logits
from training.errors import BadSetting, CannotAdopt, UnknownName
from training.publishing.signatures import ImageShapes, image_inputs

# Asked (what, choices) where the model does not tell; gives the answer, or None where nobody can.
Ask = Callable[[str, Sequence[str]], str | None]


@dataclass(frozen=True)
class Wishes:
    """What the user said of the model; what they did not say is guessed, and said.

    labels: the classes of each head that names some, in the order of its output.
    preprocess: what pixels of 0..255 go through before the model sees them.
    inputs: image, numbers or text, by an input's name (Keras's own, or the new one).
    resize: (height, width) that files are brought to where the model takes any size.
    samples: image files and folders, or `.npz` files.
    explain_layer: whose maps `explain` looks at, by name; the last convolution's if not said.

    >>> Wishes(labels=("cat", "dog")).preprocess is None
    True
    """

    labels: Sequence[str] | None = None
    preprocess: Preprocess | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    resize: tuple[int, int] | None = None
    samples: Sequence[Path] = ()
    explain_layer: str = ""


@dataclass(frozen=True)
class Adopted:
    """A model with the contract's names round it, and in words what it was taken for."""

    model: keras.Model
    heads: Mapping[str, Head]
    inputs: Mapping[str, Tensor]
    images: ImageShapes
    notes: tuple[str, ...]


def adopt(model: keras.Model, wishes: Wishes, ask: Ask) -> Adopted:
    """Decide what the model is, and put the contract's names and preprocessing round it.

    Raises CannotAdopt where it cannot be known, naming the option that tells.

    >>> image = keras.Input((8, 8, 1))
    >>> x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(image))
    >>> classifier = keras.Model(image, keras.layers.Dense(2, activation="softmax")(x))
    >>> adopted = adopt(classifier, Wishes(labels=("cat", "dog")), lambda *_: None)
    >>> adopted.heads
    {'label': Classes(labels=('cat', 'dog'), weight=1.0)}
    """
    given = wrapping.inputs_of(model)
    kinds = [_kind(tensor, wishes.inputs) for tensor in given]
    names = naming.name_inputs([(each.name, kind) for each, kind in zip(given, kinds, strict=True)])
    _check_known(wishes.inputs, [*names, *(each.name for each in given)])
    inputs = dict(zip(names, given, strict=True))
    pictures = [name for name, kind in zip(names, kinds, strict=True) if kind == guessing.IMAGE]
    preprocess, pixels = _preprocess(model, wishes.preprocess, ask) if pictures else ("raw", "")
    outputs = _outputs(model, given, inputs[pictures[0]].shape[:2] if pictures else (), wishes)
    wrapped = wrapping.wrap(model, inputs, dict.fromkeys(pictures, preprocess), [*outputs])
    images = _image_shapes(wrapped, pictures, wishes.resize)
    notes = [
        *(
            f"input {_called(name, each)}: {kind}, {each.dtype}{_sizes(each)}"
            for (name, each), kind in zip(inputs.items(), kinds, strict=True)
        ),
        *([f"pixels: {pixels}"] if pictures else []),
        *(f"output {_called(name, each.tensor)}: {each.said}" for name, each in outputs.items()),
        *(
            f"{name}: files are not decoded, as it takes any size; say --resize HEIGHT,WIDTH"
            for name in pictures
            if name not in images
        ),
    ]
    heads = {name: each.head for name, each in outputs.items() if each.head}
    return Adopted(wrapped, heads, inputs, images, tuple(notes))


@dataclass(frozen=True)
class _Output:
    """head: what names classes by it; None where it is given as it is."""

    tensor: Tensor
    head: Head | None
    said: str


def _outputs(
    model: keras.Model,
    inputs: Sequence[Tensor],
    pixels: Sequence[int | None],
    wishes: Wishes,
) -> dict[str, _Output]:
    """The model's outputs by the name that each is to have; pixels: (height, width) of the first
    picture. Raises BadSetting for labels that no output can have."""
    tensors = wrapping.outputs_of(model, inputs)
    kinds = [guessing.head_kind(model, place, each, pixels) for place, each in enumerate(tensors)]
    heads = [_head(kind, each, wishes.labels) for kind, each in zip(kinds, tensors, strict=True)]
    if wishes.labels and not any(heads):
        raise BadSetting(
            f"{len(wishes.labels)} labels were given, and no output has so many values: "
            + ", ".join(f"{each.name} {_sizes(each)}" for each in tensors)
        )
    names = naming.name_heads(
        [
            (each.name, guessing.LABEL if head else kind)
            for each, kind, head in zip(tensors, kinds, heads, strict=True)
        ]
    )
    named = "labels given" if wishes.labels else "by number: say --labels FILE to name them"
    return {
        name: _Output(
            each, head, f"{_sizes(each)}, {_classes(head) + named if head else 'as it is'}"
        )
        for name, each, head in zip(names, tensors, heads, strict=True)
    }


def _kind(tensor: Tensor, wished: Mapping[str, str]) -> str:
    guessed = guessing.input_kind(tensor)
    [new] = naming.name_inputs([(tensor.name, guessed)])
    kind = wished.get(tensor.name, wished.get(new, guessed))
    if kind not in guessing.INPUT_KINDS:
        raise UnknownName("there is no kind of input", kind, guessing.INPUT_KINDS)
    if kind == guessing.IMAGE and guessed != guessing.IMAGE:
        raise CannotAdopt(
            f"input {tensor.name} is {tensor.dtype}{[*tensor.shape]}, which no picture can be: "
            f"expected height, width and 1 or 3 channels"
        )
    return kind


def _check_known(wished: Mapping[str, str], known: Sequence[str]) -> None:
    for name in wished:
        if name not in known:
            raise UnknownName("the model has no input", name, known)


def _preprocess(model: keras.Model, wished: Preprocess | None, ask: Ask) -> tuple[Preprocess, str]:
    """How pixels are prepared, and the same in words."""
    if wished is not None:
        if isinstance(wished, str) and wished not in wrapping.MODES:
            raise UnknownName("there is no preprocessing", wished, wrapping.MODES)
        return wished, _in_words(wished)
    if guessed := guessing.preprocessing(model):
        mode, why = guessed
        return mode, f"{_in_words(mode)}, since {why}"
    answer = ask(
        "The model does not say which numbers it was trained on. Pixels were", [*wrapping.MODES]
    )
    if answer is None:
        raise CannotAdopt(
            "the model does not say which numbers it was trained on: say --preprocess with "
            "raw (0..255), scale01 (0..1), scale11 (-1..1), imagenet-caffe, imagenet-torch or "
            "module:function"
        )
    return answer, _in_words(answer)


def _head(kind: str, output: Tensor, labels: Sequence[str] | None) -> Head | None:
    """What names classes; None for an output that is given as it is."""
    if len(output.shape) != 1 or kind not in (
        guessing.LABEL,
        guessing.LOGITS,
        guessing.SCORE,
        guessing.VALUES,
    ):
        return None
    width = output.shape[0]
    if labels is None:
        # Classes have numbers where nobody knows their names; logits may be no classes at all.
        return Classes(tuple(map(str, range(width or 0)))) if kind == guessing.LABEL else None
    if kind == guessing.SCORE and len(labels) == 2:
        return Chance(tuple(labels))
    if width != len(labels):
        return None
    return (Logits if kind in (guessing.LOGITS, guessing.VALUES) else Classes)(tuple(labels))


def _image_shapes(
    wrapped: keras.Model, pictures: Sequence[str], resize: tuple[int, int] | None
) -> ImageShapes:
    free = {
        tensor.name: (*resize, tensor.shape[-1])
        for tensor in wrapped.inputs
        if resize and tensor.name in pictures and None in tensor.shape[1:]
    }
    fixed = image_inputs([tensor for tensor in wrapped.inputs if tensor.name in pictures])
    return {name: {**fixed, **free}[name] for name in pictures if name in free or name in fixed}


def _in_words(preprocess: Preprocess) -> str:
    if callable(preprocess):
        return f"0..255, prepared in the graph by {getattr(preprocess, '__name__', 'a function')}"
    if preprocess == "raw":
        return "0..255, as they are"
    return f"0..255, prepared in the graph as {preprocess}"


def _classes(head: Head) -> str:
    how: dict[type[Head], str] = {
        Logits: ", softmax for the scores",
        Chance: ", one probability for both",
    }
    return f"{len(head.labels)} classes{how.get(type(head), '')}, "


def _called(name: str, tensor: Tensor) -> str:
    return name if name == tensor.name else f"{name} (Keras: {tensor.name})"


def _sizes(tensor: Tensor) -> str:
    return f"[N,{','.join('?' if size is None else str(size) for size in tensor.shape)}]"

"""Deciding what a model is: what the user said of it, what it says itself, and what was guessed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import keras

from training.adopting import guessing, naming, outputs, rows, wrapping
from training.adopting.guessing import Tensor
from training.adopting.outputs import Ask
from training.adopting.wrapping import Preprocess
from training.data.heads import Head
from training.errors import BadSetting, CannotAdopt, UnknownName
from training.publishing.agreement import Limits
from training.publishing.signatures import ImageShapes, image_inputs

_LEAST_SIDE = 8  # of what may be a picture
_ALONE = (
    "texts: each is computed by itself, as the model pads it to a longer one beside it and answers "
    "otherwise; TextVectorization(output_sequence_length=…) computes them together, and faster"
)


@dataclass(frozen=True)
class Wishes:
    """What the user said of the model; what they did not say is guessed, and said.

    labels: the classes of each head that names some, in the order of its output.
    preprocess: what pixels of 0..255 go through before the model sees them.
    inputs: image, numbers or text, by an input's name (Keras's own, or the new one).
    outputs: picture, mask or numbers, by an output's name, as inputs are.
    resize: (height, width) that files are brought to where the model takes any size.
    samples: image files and folders, or `.npz` files.
    explain_layer: whose maps `explain` looks at, by name; "": a last convolution's, or tokens.
    optimize: which more graphs there are to be, one of OPTIMIZE; limits: what they may differ by;
    optimize_constants: MB that a model server may hold more for bf16's weights as constants.
    batch_encoded: rows of several calls of `encoded` that the network takes at once.

    >>> Wishes(labels=("cat", "dog")).preprocess is None
    True
    """

    labels: Sequence[str] | None = None
    preprocess: Preprocess | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    resize: tuple[int, int] | None = None
    samples: Sequence[Path] = ()
    explain_layer: str = ""
    optimize: str = "none"
    limits: Limits = field(default_factory=Limits)
    outputs: Mapping[str, str] = field(default_factory=dict)
    optimize_constants: int = 0
    batch_encoded: int = 0


@dataclass(frozen=True)
class Adopted:
    """A model with the contract's names round it, and in words what it was taken for.

    kinds: of the outputs that are pictures or masks, or said to be numbers, which.

    >>> image = keras.Input((8, 8, 1), name="image")
    >>> model = keras.Model(image, image)
    >>> Adopted(model, {}, {"image": image}, {"image": (8, 8, 1)}, {"image": "picture"}, ()).heads
    {}
    """

    model: keras.Model
    heads: Mapping[str, Head]
    inputs: Mapping[str, Tensor]
    images: ImageShapes
    kinds: Mapping[str, str]
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
    kinds = _kinds(given, wishes.inputs)
    names = naming.name_inputs(
        [(each.own_name, kind) for each, kind in zip(given, kinds, strict=True)]
    )
    inputs = {
        name: _with_channel(each) if kind == guessing.IMAGE else each
        for name, each, kind in zip(names, given, kinds, strict=True)
    }
    pictures = [name for name, kind in zip(names, kinds, strict=True) if kind == guessing.IMAGE]
    preprocess, pixels = _preprocess(
        model, [inputs[name] for name in pictures], wishes.preprocess, ask
    )
    picture = inputs[pictures[0]].shape if pictures else ()
    tensors = wrapping.outputs_of(model, given)
    answered = rows.ask(model, given)
    found = outputs.outputs(model, tensors, answered, picture, wishes.labels, wishes.outputs, ask)
    wrapped = wrapping.wrap(
        model, inputs, dict.fromkeys(pictures, preprocess), [*found], alone=answered.alone
    )
    images = _image_shapes(wrapped, pictures, wishes.resize)
    notes = [
        *(
            f"input {_called(name, each)}: {kind}, {each.dtype}{each.sizes}"
            f"{_perhaps_grey(name, each) if kind == guessing.NUMBERS else ''}"
            for (name, each), kind in zip(inputs.items(), kinds, strict=True)
        ),
        *([f"pixels: {pixels}"] if pictures else []),
        *(f"output {_called(name, each.tensor)}: {each.said}" for name, each in found.items()),
        *(
            f"layer {name} was built with training=True, which is left out, as model.predict does: "
            f"the same picture has the same answer"
            for name in guessing.told_to_train(model)
        ),
        *([_ALONE] if answered.alone else ()),
        *(
            f"{name}: files are not decoded, as it takes any size; say --resize HEIGHT,WIDTH"
            for name in pictures
            if name not in images
        ),
    ]
    heads = {name: each.head for name, each in found.items() if each.head}
    kinds_said = {
        name: each.kind for name, each in found.items() if each.kind in guessing.OUTPUT_KINDS
    }
    return Adopted(wrapped, heads, inputs, images, kinds_said, tuple(notes))


def _kinds(given: Sequence[Tensor], wished: Mapping[str, str]) -> list[str]:
    """What each input is, by what its shape says or `wished` does, by Keras's name for it, the one
    that is shown, or the one that it is to have."""
    guesses = [guessing.input_kind(each) for each in given]
    shown = naming.name_inputs(
        [(each.own_name, kind) for each, kind in zip(given, guesses, strict=True)]
    )
    kinds = [
        wished.get(each.name, wished.get(name, guess))
        for each, name, guess in zip(given, shown, guesses, strict=True)
    ]
    for name in wished:
        if name not in [*shown, *(each.name for each in given)]:
            raise UnknownName("the model has no input", name, [*shown, *(x.name for x in given)])
    for each, kind in zip(given, kinds, strict=True):
        _check_kind(each, kind)
    return kinds


def _check_kind(tensor: Tensor, kind: str) -> None:
    if kind not in guessing.INPUT_KINDS:
        raise UnknownName("there is no kind of input", kind, guessing.INPUT_KINDS)
    described = f"input {tensor.name} is {tensor.dtype}{tensor.sizes}, which no"
    if kind == guessing.IMAGE and guessing.input_kind(_with_channel(tensor)) != guessing.IMAGE:
        raise CannotAdopt(
            f"{described} picture can be: expected height, width and 1 or 3 channels, or height "
            f"and width"
        )
    if (kind == guessing.TEXT) != (tensor.dtype == "string"):
        raise CannotAdopt(
            f"{described} {kind} can be: text is of dtype string, all else is not; of a subclassed "
            f"model, keras.Model(text, model(text)) with text = keras.Input((1,), dtype='string')"
        )


def _with_channel(tensor: Tensor) -> Tensor:
    """A grey picture that the model takes as [N, H, W], as files and clients have it."""
    if len(tensor.shape) != 2 or tensor.dtype == "string":
        return tensor
    return replace(tensor, shape=(*tensor.shape, 1))


def _perhaps_grey(name: str, tensor: Tensor) -> str:
    sides = [size or 0 for size in tensor.shape]
    if len(sides) != 2 or min(sides) < _LEAST_SIDE or "int" in tensor.dtype:
        return ""
    return f"; where it is a grey picture, say --input {name}=image"


def _preprocess(
    model: keras.Model, pictures: Sequence[Tensor], wished: Preprocess | None, ask: Ask
) -> tuple[Preprocess, str]:
    """How the pixels of these inputs are prepared, and the same in words."""
    if not pictures:
        return "raw", ""
    whole = next((each for each in pictures if "int" in each.dtype), None)
    if wished is not None:
        if isinstance(wished, str) and wished not in wrapping.MODES:
            raise UnknownName("there is no preprocessing", wished, wrapping.MODES)
        if isinstance(wished, str) and wished != "raw" and whole:
            raise BadSetting(
                f"input {whole.name} is {whole.dtype}, which has no numbers between 0 and 1: "
                f"--preprocess {wished} would leave nothing of the picture; say raw"
            )
        return wished, _in_words(wished)
    if guessed := guessing.preprocessing(model, pictures):
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


def _image_shapes(
    wrapped: keras.Model, pictures: Sequence[str], resize: tuple[int, int] | None
) -> ImageShapes:
    free = {
        tensor.name: (*resize, tensor.shape[-1])
        for tensor in wrapped.inputs
        if resize and tensor.name in pictures and None in tensor.shape[1:]
    }
    if resize and not free:
        raise BadSetting("no input takes pictures of any size, so --resize has nothing to say")
    fixed = image_inputs([tensor for tensor in wrapped.inputs if tensor.name in pictures])
    return {name: {**fixed, **free}[name] for name in pictures if name in free or name in fixed}


def _in_words(preprocess: Preprocess) -> str:
    if callable(preprocess):
        return f"0..255, prepared in the graph by {getattr(preprocess, '__name__', 'a function')}"
    if preprocess == "raw":
        return "0..255, as they are"
    return f"0..255, prepared in the graph as {preprocess}"


def _called(name: str, tensor: Tensor) -> str:
    return name if name == tensor.name else f"{name} (Keras: {tensor.name})"

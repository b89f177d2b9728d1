"""What each output of a model is taken for, and which of them names classes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import keras

from training.adopting import guessing, labels, naming
from training.adopting.activations import SIGMOID, SOFTMAX, activations
from training.adopting.guessing import Tensor
from training.adopting.rows import Answered
from training.data.heads import Chance, Classes, Head, Logit, Logits, Mask
from training.errors import BadSetting, CannotAdopt, UnknownName

_IMAGENET = "The model names 1,000 classes. Are they ImageNet's, as keras.applications has them"

# Asked (what, choices) where the model does not tell; gives the answer, or None where nobody can.
Ask = Callable[[str, Sequence[str]], str | None]


@dataclass(frozen=True)
class Output:
    """head: what names classes by it; None where it is given as it is. kind: mask, picture or
    another of guessing.py's. said: head and kind in words.

    >>> Output(Tensor("age", (1,), "float32"), None, "output", "[N,1], as it is").head
    """

    tensor: Tensor
    head: Head | None
    kind: str
    said: str


@dataclass(frozen=True)
class _Found:
    """An output, what it comes out of, and the kind that it is taken for."""

    tensor: Tensor
    activation: str | None
    kind: str
    is_said: bool = False  # by the user

    @property
    def width(self) -> int | None:
        return self.tensor.shape[-1] if self.tensor.shape else None

    @property
    def is_vector(self) -> bool:
        """Whether it has a vector of floats for each row."""
        return len(self.tensor.shape) == 1 and "float" in self.tensor.dtype


def outputs(
    model: keras.Model,
    tensors: Sequence[Tensor],
    answered: Answered,
    picture: Sequence[int | None],
    wished: Sequence[str] | None,
    kinds: Mapping[str, str],
    ask: Ask,
) -> dict[str, Output]:
    """The model's outputs by the name that each is to have.

    tensors: its outputs. answered: to two rows. picture: [H, W, C] of the first input that is one.
    wished: the labels that the user gave. kinds: picture or mask, where the user said so of an
    output. Raises BadSetting for labels that no output can have, CannotAdopt for a kind.

    >>> image = keras.Input((4,), name="x")
    >>> model = keras.Model(image, keras.layers.Dense(1, name="big")(image))
    >>> answered = Answered(["BiasAdd"], [keras.ops.convert_to_numpy([[-3.0]])], alone=False)
    >>> given = [Tensor("big", (1,), "float32")]
    >>> outputs(model, given, answered, (), ("no", "yes"), {}, lambda *_: None)["big"].said
    '[N,1], 2 classes, a sigmoid for the scores, labels given'
    """
    found = _overruled(
        [
            _Found(each, activation, guessing.head_kind(each, activation, picture))
            for each, activation in zip(tensors, activations(model, answered), strict=True)
        ],
        kinds,
    )
    classes, named = _labels(model, found, wished, ask)
    heads = _heads(found, classes)
    if classes and not any(heads):
        raise BadSetting(_unfit(classes, tensors))
    said = [_kind_said(each, head) for each, head in zip(found, heads, strict=True)]
    names = naming.name_heads(
        [(each.tensor.own_name, kind) for each, kind in zip(found, said, strict=True)]
    )
    return {
        name: Output(
            each.tensor,
            head,
            kind,
            f"{each.tensor.sizes}, {_in_words(head) + named if head else _as_it_is(name, each)}",
        )
        for name, each, head, kind in zip(names, found, heads, said, strict=True)
    }


def _overruled(found: Sequence[_Found], kinds: Mapping[str, str]) -> list[_Found]:
    """As the user said, by Keras's name for an output, or by the one that is shown."""
    shown = naming.name_heads([(each.tensor.own_name, each.kind) for each in found])
    own = [each.tensor.name for each in found]
    for name, kind in kinds.items():
        if name not in [*shown, *own]:
            raise UnknownName("the model has no output", name, [*shown, *own])
        if kind not in guessing.OUTPUT_KINDS:
            raise UnknownName("there is no kind of output", kind, guessing.OUTPUT_KINDS)
    return [
        replace(each, kind=_checked_kind(each.tensor, said), is_said=True)
        if (said := kinds.get(each.tensor.name, kinds.get(name)))
        else each
        for name, each in zip(shown, found, strict=True)
    ]


def _checked_kind(tensor: Tensor, kind: str) -> str:
    if kind == guessing.NUMBERS:
        return kind
    is_picture = kind == guessing.PICTURE
    if not (guessing.may_be_picture(tensor) if is_picture else len(tensor.shape) == 3):
        raise CannotAdopt(
            f"output {tensor.name} is {tensor.dtype}{tensor.sizes}, which no {kind} can be: "
            f"expected height, width and {'1 or 3 channels' if is_picture else 'classes'}"
        )
    return kind


def _as_it_is(name: str, found: _Found) -> str:
    if found.kind not in guessing.PLANES:
        return "as it is"
    said = f"as it is, a {found.kind}"
    other = guessing.PICTURE if found.kind == guessing.MASK else guessing.MASK
    is_plain = found.is_said or found.activation == SOFTMAX
    if is_plain or not guessing.may_be_picture(found.tensor):
        return said
    return f"{said}; where it is a {other}, say --output {name}={other}"


def _labels(
    model: keras.Model, found: Iterable[_Found], wished: Sequence[str] | None, ask: Ask
) -> tuple[tuple[str, ...] | None, str]:
    """The classes' names where they are known, and in words whose they are."""
    by_number = "by number: say --labels FILE to name them"
    if wished is not None:
        return labels.checked(wished), "labels given"
    if not any(
        each.kind == guessing.LABEL and each.tensor.shape == (labels.IMAGENET_CLASSES,)
        for each in found
    ):
        return None, by_number
    known = labels.imagenet()
    if known is None:
        return None, f"{by_number}; ImageNet's would be taken from {labels.index_file()}"
    if guessing.is_application(model) or ask(_IMAGENET, ("yes", "no")) == "yes":
        return known, f"ImageNet's labels, of {labels.index_file()}"
    return None, by_number


def _heads(found: Sequence[_Found], classes: tuple[str, ...] | None) -> list[Head | None]:
    heads = [_head(each, classes) for each in found]
    if classes is None:
        return heads
    # What has no activation may be a box beside the classes, and as wide.
    activated = [
        head if each.kind not in (guessing.LOGITS, guessing.VALUES) else None
        for each, head in zip(found, heads, strict=True)
    ]
    if any(activated):
        return activated
    if any(heads):
        return heads
    # What was left to the loss may have them yet, where there is no choice.
    of_scores = [_head_of_scores(each, classes) for each in found]
    return of_scores if sum(map(bool, of_scores)) == 1 else heads


def _head(found: _Found, classes: tuple[str, ...] | None) -> Head | None:
    """What names classes; None for an output that is given as it is."""
    kind, width = found.kind, found.width
    if kind == guessing.MASK and classes and width == len(classes):
        return Mask(classes) if found.is_said or found.activation in (SOFTMAX, SIGMOID) else None
    if not found.is_vector or kind not in (
        guessing.LABEL,
        guessing.LOGITS,
        guessing.SCORE,
        guessing.VALUES,
    ):
        return None
    if classes is None:
        # Classes have numbers where nobody knows their names; logits may be no classes at all.
        return Classes(tuple(map(str, range(width or 0)))) if kind == guessing.LABEL else None
    if kind == guessing.SCORE and len(classes) == 2:
        return Chance(classes)
    if width != len(classes):
        return None
    return (Logits if kind in (guessing.LOGITS, guessing.VALUES) else Classes)(classes)


def _head_of_scores(found: _Found, classes: tuple[str, ...]) -> Head | None:
    """Of an output without an activation: one number that tells two classes apart, or a number of
    each pixel for each class.

    What another operation than a layer makes may be a chance, whose sigmoid is no chance; the
    largest of several is the same class whatever they are.
    """
    if found.is_said:
        return None
    if found.activation == "linear" and found.is_vector and found.width == 1 and len(classes) == 2:
        return Logit(classes)
    may_be_scores = found.activation in ("linear", SIGMOID, None)
    is_plane = found.kind in guessing.PLANES
    return Mask(classes) if may_be_scores and is_plane and found.width == len(classes) else None


def _kind_said(found: _Found, head: Head | None) -> str:
    if head is None:
        return found.kind
    return guessing.MASK if isinstance(head, Mask) else guessing.LABEL


def _unfit(classes: Sequence[str], tensors: Sequence[Tensor]) -> str:
    more = ", …" if len(classes) > 3 else ""
    widths = ", ".join(f"{each.name} {each.sizes}" for each in tensors)
    return (
        f"{len(classes)} labels were given ({', '.join(classes[:3])}{more}), and no output has so "
        f"many values for a row or a pixel: {widths}; without labels it is given as it is"
    )


def _in_words(head: Head) -> str:
    how: dict[type[Head], str] = {
        Logits: ", softmax for the scores",
        Chance: ", one probability for both",
        Logit: ", a sigmoid for the scores",
    }
    return f"{len(head.labels)} classes{how.get(type(head), '')}, "

"""The live version and the one to be published, asked about the same held-out samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from sluice.wire.tensors import Array
from training.data.dataset import Dataset
from training.data.heads import Chance, Classes, Head, Logit, Mask
from training.errors import Worse
from training.inference import answering, predict
from training.publishing import held_out
from training.publishing.held_out import HeldOut
from training.publishing.saved_model import Session

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Figure:
    """measure: accuracy, iou or r2, of which more is better and 1 is all.

    >>> print(Figure("label", "accuracy", live=0.9, new=0.95))
    label accuracy 95.0%, the live version's 90.0%
    """

    head: str
    measure: str
    live: float
    new: float

    def __str__(self) -> str:
        return f"{self.head} {self.measure} {self.new:.1%}, the live version's {self.live:.1%}"


@dataclass(frozen=True)
class Comparison:
    """version: the live one's number; figures: of the heads that both have.

    >>> print(Comparison("1", 6, [Figure("label", "accuracy", live=1.0, new=0.5)]))
    On the same 6 held-out samples as version 1: label accuracy 50.0%, the live version's 100.0%
    """

    version: str
    samples: int
    figures: Sequence[Figure]

    def check(self, margin: float, way_out: str) -> None:
        """Raises Worse where a figure fell by more than `margin` points, of 100."""
        worse = [each for each in self.figures if each.new < each.live - margin / 100 - _ROUNDING]
        if worse:
            raise Worse(
                f"not published: on the {self.samples:,} held-out samples of version "
                f"{self.version}, it is worse than that version by more than its margin of "
                f"{margin:g} in 100: {'; '.join(map(str, worse))}. {way_out}"
            )

    def __str__(self) -> str:
        figures = "; ".join(map(str, self.figures))
        return f"On the same {self.samples:,} held-out samples as version {self.version}: {figures}"


def compare(model: keras.Model, dataset: Dataset, live: Path) -> Comparison | str:
    """On the samples that `live` keeps, else on the dataset's; or why it cannot be said."""
    return compare_on(held_out.read(live) or held_out.of(dataset), model, dataset.heads, live)


def compare_on(
    samples: HeldOut, model: keras.Model, heads: Mapping[str, Head], live: Path
) -> Comparison | str:
    """The model and the live version on the same samples; or why it cannot be said."""
    expected = {tensor.name: tuple(tensor.shape[1:]) for tensor in answering(model).inputs}
    if expected != {name: array.shape[1:] for name, array in samples.inputs.items()}:
        return f"Not compared with version {live.name}, whose held-out samples have another shape"
    try:
        with Session(live) as session:
            theirs = session.predict(samples.inputs)
    except (tf.errors.OpError, DecodeError, OSError, KeyError, ValueError, RuntimeError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        return f"Not compared with version {live.name}, which cannot be asked: {said}"
    ours = predict(model, samples.inputs)
    figures = [
        Figure(
            name,
            measure_of(head),
            measured(
                given_by(head, samples.labels[name], theirs[name]),
                samples.labels[name],
                samples,
                name,
                theirs[name],
            ),
            measured(head, head.labels, samples, name, ours[name]),
        )
        for name, head in heads.items()
        if name in samples.targets and name in theirs
    ]
    if not figures:
        return f"Not compared with version {live.name}, which has no head of the same name"
    return Comparison(live.name, len(samples), figures)


def given_by(head: Head, labels: Sequence[str], output: Array) -> Head:
    """What the live version's `output` is to be read as, whose labels are these, where the new
    version has `head`: of two classes a version may give two numbers, or one, and that may be a
    chance or a logit.

    >>> type(given_by(Logit(("no", "yes")), ("no", "yes"), np.array([[0.2], [0.9]]))).__name__
    'Chance'
    >>> type(given_by(Chance(("no", "yes")), ("no", "yes"), np.array([[0.2], [-3.0]]))).__name__
    'Logit'
    """
    if not isinstance(head, Classes) or isinstance(head, Mask):
        return head
    if output.shape[-1] == len(labels):
        return Classes(head.labels)
    is_chance = bool(((output >= 0) & (output <= 1)).all())
    return Chance(head.labels) if is_chance else Logit(head.labels)


def measure_of(head: Head) -> str:
    """The name of the figure of a head of which more is better and 1 is all.

    >>> measure_of(Classes(("cat", "dog")))
    'accuracy'
    """
    if isinstance(head, Mask):
        return "iou"
    return "accuracy" if isinstance(head, Classes) else "r2"


def measured(
    head: Head, labels: Sequence[str], samples: HeldOut, name: str, output: Array
) -> float:
    """How good `output` is, whose last axis has `labels`: by their names, for a later version may
    have more classes, or others.

    >>> cats = HeldOut({"image": np.zeros((2, 1))}, {"label": np.zeros(2)}, {"label": ("cat",)})
    >>> measured(Classes(("cat",)), ("dog", "cat"), cats, "label", np.array([[0, 1], [1, 0]]))
    0.5
    """
    target: Array = samples.targets[name].astype(head.dtype)
    if isinstance(head, Classes):
        numbers = {label: number for number, label in enumerate(labels)}
        known = np.array([numbers.get(label, -1) for label in samples.labels[name]], np.int64)
        head, target = type(head)(tuple(labels)), known[target]
    figures: Mapping[str, float] = head.metrics(target, output)
    return float(figures[measure_of(head)])

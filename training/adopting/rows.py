"""A model asked for two rows: what it answers, and whether one's answer hangs on the other.

The rows of several requests are asked together, so that it must not. Texts alone may: a
TextVectorization pads them to the longest of those that are asked together, as it did in training.
A model that answers otherwise then is asked for each row by itself, in the published graph too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from sluice.wire.tensors import Array
from training.adopting import samples, wrapping
from training.adopting.guessing import Tensor
from training.adopting.reading import first_line
from training.errors import CannotAdopt
from training.explaining.graph import made_by
from training.inference import as_dtype

_ROWS = 2  # that are tried
_ROUNDED = 1e-3  # of batches of one size, which are computed in the same way
_ROUNDED_TEXTS = 1e-5  # what is no more than rounded costs a text its company, and no answer
_TOGETHER = "the rows of several requests are asked together; compute each by itself"
_ONE_LENGTH = "give all texts one length (TextVectorization(output_sequence_length=…))"

Ask = Callable[..., list[Array]]


@dataclass(frozen=True)
class Answered:
    """operations: the type of the one that gives each output. values: each output [2, ...], empty
    where the model refuses random rows. alone: whether each row is to be asked by itself.

    >>> Answered(["Softmax"], [np.float32([[0.5, 0.5], [1, 0]])], alone=False).operations
    ['Softmax']
    """

    operations: Sequence[str]
    values: Sequence[Array]
    alone: bool


def ask(model: keras.Model, inputs: Sequence[Tensor]) -> Answered:
    """What the model makes of random rows. Raises CannotAdopt for one whose answers are no row for
    each row, or another beside other rows.

    >>> image = keras.Input((4,))
    >>> asked = ask(keras.Model(image, keras.ops.softmax(image)), [Tensor("x", (4,), "float32")])
    >>> asked.operations, [each.shape for each in asked.values]
    (['Softmax'], [(2, 4)])
    """
    graph = tf.function(
        lambda *tensors: [*wrapping.answers(model, tensors).values()]
    ).get_concrete_function(*(tf.TensorSpec((None, *each.shape), each.dtype) for each in inputs))
    for place, each in enumerate(graph.structured_outputs, start=1):
        if isinstance(each, tf.RaggedTensor | tf.SparseTensor):
            raise CannotAdopt(f"output {place} of the model is sparse or ragged: {wrapping.DENSE}")
    rows = samples.random_samples({each.name: each for each in inputs}, {})
    texts = any(each.dtype == "string" for each in inputs)

    def asked(*places: int) -> list[Array]:
        given = (tf.constant(as_dtype(rows[each.name][[*places]], each.dtype)) for each in inputs)
        answers = [
            np.asarray((tf.cast(each, tf.float32) if each.dtype.is_floating else each).numpy())
            for each in graph(*given)
        ]
        _check_rows(answers, len(places))
        return answers

    try:
        values = asked(0, 1)
        _check_one(asked, texts=texts)
        place = _another_beside(asked, values, _ROUNDED_TEXTS if texts else _ROUNDED)
    except tf.errors.FailedPreconditionError as error:
        raise CannotAdopt(
            f"a layer of the model has no words ({first_line(error)}): an HDF5 file keeps none, so "
            f"save it with model.save('model.keras') in the program that has it, once the layer is "
            f"adapted"
        ) from error
    except tf.errors.OpError:
        values, place = [np.empty(0)] * len(graph.outputs), 0
    if place and not texts:
        raise CannotAdopt(
            f"output {place} of the model is another for a row beside another one than beside "
            f"itself: {_TOGETHER}"
        )
    if place and not all(each.shape[1:].is_fully_defined() for each in graph.outputs):
        raise CannotAdopt(
            f"output {place} of the model is another for a text beside a longer one, and as long: "
            f"{_ONE_LENGTH}"
        )
    return Answered([made_by(each).type for each in graph.outputs], values, alone=bool(place))


def _check_rows(answers: Sequence[Array], count: int) -> None:
    for place, each in enumerate(answers, start=1):
        if each.shape[:1] != (count,):
            raise CannotAdopt(
                f"output {place} of the model is {[*each.shape]} where the input has {count} "
                f"row{'s' * (count > 1)}: expected one for each, as {_TOGETHER}"
            )


def _check_one(ask: Ask, *, texts: bool) -> None:
    try:
        ask(0)
    except tf.errors.OpError as error:
        raise CannotAdopt(
            f"the model answers two rows and refuses one of them alone ({first_line(error)}): a "
            f"request may have any number of rows{f'; {_ONE_LENGTH}' * texts}"
        ) from error


def _another_beside(ask: Ask, answers: Sequence[Array], rounded: float) -> int:
    """The first output, from 1, that is another for a row beside another row than beside itself:
    of batches of one size, as those of two are computed, and rounded, in different ways. 0 where
    none is."""
    for row in range(_ROWS):
        beside_itself = ask(row, row)
        place = _differs(answers, beside_itself, row, rounded)
        # What answers the same rows otherwise each time is told so when all of it is tried.
        if place and not _differs(ask(row, row), beside_itself, row, rounded):
            return place
    return 0


def _differs(answers: Sequence[Array], others: Sequence[Array], row: int, rounded: float) -> int:
    """The first output, from 1, whose `row` is not the other's; 0 where none is."""
    pairs = enumerate(zip(answers, others, strict=True), start=1)
    return next(
        (
            place
            for place, (each, other) in pairs
            if not _are_alike(each[row : row + 1], other[row : row + 1], rounded)
        ),
        0,
    )


def _are_alike(one: Array, other: Array, rounded: float) -> bool:
    """But for rounding, on which words and whole numbers hang; what is padded to the largest of a
    batch has no other numbers for it."""
    if one.shape != other.shape or one.dtype != np.float32:
        return True
    most = float(np.abs(other, where=np.isfinite(other), out=np.zeros_like(other)).max(initial=0))
    return bool(np.allclose(one, other, rtol=rounded, atol=rounded * most, equal_nan=True))

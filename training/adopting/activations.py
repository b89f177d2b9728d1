"""What each output comes out of: by the graph that computes it, and by its values on some rows.

A layer's `activation` tells of the layer. What a model's own `call` makes of it, a mean over
several models, a softmax that is an operation of its own: only the graph and the values tell.
"""

from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from sluice.wire.tensors import Array
from training.adopting import samples, wrapping
from training.adopting.guessing import Tensor, layer_activation, operation_of
from training.adopting.reading import first_line
from training.errors import CannotAdopt
from training.explaining.graph import made_by
from training.inference import as_dtype

SOFTMAX, SIGMOID = "softmax", "sigmoid"

_OPERATIONS = {"Softmax": SOFTMAX, "Sigmoid": SIGMOID}
_ROWS = 2  # that are tried
_ROUNDED = 1e-3  # of batches of one size, which are computed in the same way
_TOGETHER = "the rows of several requests are asked together; compute each by itself"
_ATOL = 1e-3  # of a sum of probabilities: half precision has no more digits


def activations(model: keras.Model, inputs: Sequence[Tensor]) -> list[str | None]:
    """Of each output, in the model's order: softmax where it gives probabilities that sum to 1,
    sigmoid, else what Keras calls the last layer's, or None. Raises CannotAdopt.

    >>> image = keras.Input((4,))
    >>> activations(keras.Model(image, keras.ops.softmax(image)), [Tensor("x", (4,), "float32")])
    ['softmax']
    """
    graph = tf.function(
        lambda *tensors: [*wrapping.answers(model, tensors).values()]
    ).get_concrete_function(*(tf.TensorSpec((None, *each.shape), each.dtype) for each in inputs))
    return [
        _activation(
            made_by(output).type,
            values,
            layer_activation(model, place),
            is_known=not isinstance(operation_of(model, place), keras.Model | None),
        )
        for place, (output, values) in enumerate(
            zip(graph.outputs, _values(graph, inputs), strict=True)
        )
    ]


def _values(graph: tf.types.experimental.ConcreteFunction, inputs: Sequence[Tensor]) -> list[Array]:
    """Each output on random rows; empty where the model refuses them. Raises CannotAdopt."""
    rows = samples.random_samples({each.name: each for each in inputs}, {})

    def ask(*places: int) -> list[Array]:
        given = (tf.constant(as_dtype(rows[each.name][[*places]], each.dtype)) for each in inputs)
        answers = [
            np.asarray((tf.cast(each, tf.float32) if each.dtype.is_floating else each).numpy())
            for each in graph(*given)
        ]
        _check_rows(answers, len(places))
        return answers

    try:
        answers = ask(0, 1)
        _check_alone(ask)
        # Texts are padded to the longest of those that are asked together.
        if not any(each.dtype == "string" for each in inputs):
            _check_neighbours(ask, answers)
    except tf.errors.OpError:
        return [np.empty(0)] * len(graph.outputs)
    return answers


def _check_rows(answers: Sequence[Array], count: int) -> None:
    for place, each in enumerate(answers, start=1):
        if each.shape[:1] != (count,):
            raise CannotAdopt(
                f"output {place} of the model is {[*each.shape]} where the input has {count} "
                f"row{'s' * (count > 1)}: expected one for each, as {_TOGETHER}"
            )


def _check_alone(ask: Callable[..., list[Array]]) -> None:
    try:
        ask(0)
    except tf.errors.OpError as error:
        raise CannotAdopt(
            f"the model answers two rows and refuses one of them alone ({first_line(error)}): a "
            f"request may have any number of rows"
        ) from error


def _check_neighbours(ask: Callable[..., list[Array]], answers: Sequence[Array]) -> None:
    """Raises CannotAdopt where a row beside another is another than beside itself: of batches of
    one size, as those of two are computed, and rounded, in different ways."""
    for row in range(_ROWS):
        beside_itself = ask(row, row)
        place = _differs(answers, beside_itself, row)
        # What answers the same rows otherwise each time is told so when all of it is tried.
        if place and not _differs(ask(row, row), beside_itself, row):
            raise CannotAdopt(
                f"output {place} of the model is another for a row beside another one than beside "
                f"itself: {_TOGETHER}"
            )


def _differs(answers: Sequence[Array], others: Sequence[Array], row: int) -> int:
    """The first output, from 1, whose `row` is not the other's; 0 where none is."""
    pairs = enumerate(zip(answers, others, strict=True), start=1)
    return next(
        (
            place
            for place, (each, other) in pairs
            if not _are_alike(each[row : row + 1], other[row : row + 1])
        ),
        0,
    )


def _are_alike(one: Array, other: Array) -> bool:
    """But for rounding, on which words and whole numbers hang; what is padded to the largest of a
    batch has no other numbers for it."""
    if one.shape != other.shape or one.dtype != np.float32:
        return True
    most = float(np.abs(other, where=np.isfinite(other), out=np.zeros_like(other)).max(initial=0))
    return bool(np.allclose(one, other, rtol=_ROUNDED, atol=_ROUNDED * most, equal_nan=True))


def _activation(operation: str, values: Array, layers: str | None, *, is_known: bool) -> str | None:
    """is_known: whether it is the layer that gives the output, and not just the last one."""
    if operation in _OPERATIONS:
        return _OPERATIONS[operation]
    if _are_shares(values):
        return SOFTMAX
    if layers == SIGMOID and _are_chances(values):
        return SIGMOID
    if layers == "linear" and not is_known and values.shape[1:] == (1,) and _are_chances(values):
        return None  # as likely a chance that the model's own `call` has made
    return None if layers in (SOFTMAX, SIGMOID) else layers


def _are_chances(values: Array) -> bool:
    return bool(values.size and values.min() >= 0 and values.max() <= 1)


def _are_shares(values: Array) -> bool:
    """Whether the last axis holds several numbers of 0..1 that sum to 1, everywhere."""
    if values.ndim < 2 or values.shape[-1] < 2 or values.dtype != np.float32:
        return False
    sums = values.sum(axis=-1, dtype=np.float64)
    return bool(np.all(values >= 0) and np.allclose(sums, 1, atol=_ATOL))

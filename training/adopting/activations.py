"""What each output comes out of: by the graph that computes it, and by its values on some rows.

A layer's `activation` tells of the layer. What a model's own `call` makes of it, a mean over
several models, a softmax that is an operation of its own: only the graph and the values tell.
"""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from sluice.wire.tensors import Array
from training.adopting import samples, wrapping
from training.adopting.guessing import Tensor, layer_activation
from training.errors import CannotAdopt
from training.explaining.graph import made_by
from training.inference import as_dtype

SOFTMAX, SIGMOID = "softmax", "sigmoid"

_OPERATIONS = {"Softmax": SOFTMAX, "Sigmoid": SIGMOID}
_ROWS = 2  # that are tried
_ROUNDED = 0.05
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
        _activation(made_by(output).type, values, layer_activation(model, place))
        for place, (output, values) in enumerate(
            zip(graph.outputs, _values(graph, inputs), strict=True)
        )
    ]


def _values(graph: tf.types.experimental.ConcreteFunction, inputs: Sequence[Tensor]) -> list[Array]:
    """Each output on random rows; empty where the model refuses them. Raises CannotAdopt."""
    rows = samples.random_samples({each.name: each for each in inputs}, {})

    def ask(count: int) -> list[Array]:
        given = (tf.constant(as_dtype(rows[each.name][:count], each.dtype)) for each in inputs)
        return [
            (tf.cast(each, tf.float32) if each.dtype.is_floating else each).numpy()
            for each in graph(*given)
        ]

    try:
        answers = ask(_ROWS)
        _check_rows(answers)
        alone = ask(1)
        # What answers the same row otherwise each time is told so when all of it is tried.
        if (place := _differs(answers, alone)) and not _differs(ask(1), alone):
            raise CannotAdopt(
                f"output {place} of the model is another for a row alone than beside a second one: "
                f"{_TOGETHER}"
            )
    except tf.errors.OpError:
        return [np.empty(0)] * len(graph.outputs)
    return answers


def _check_rows(answers: Sequence[Array]) -> None:
    for place, each in enumerate(answers, start=1):
        if len(each) != _ROWS:
            raise CannotAdopt(
                f"output {place} of the model has {len(each)} rows for {_ROWS} rows of input: "
                f"expected one for each, as {_TOGETHER}"
            )


def _differs(answers: Sequence[Array], others: Sequence[Array]) -> int:
    """The first output, from 1, whose first row is not the other's; 0 where none is."""
    pairs = enumerate(zip(answers, others, strict=True), start=1)
    return next((place for place, (each, other) in pairs if not _are_alike(each[:1], other[:1])), 0)


def _are_alike(one: Array, other: Array) -> bool:
    """But for what half precision rounds; words and whole numbers hang on such a rounding."""
    if one.shape != other.shape:
        return False
    if one.dtype != np.float32:
        return True
    most = float(np.abs(other, where=np.isfinite(other), out=np.zeros_like(other)).max(initial=0))
    return bool(np.allclose(one, other, rtol=_ROUNDED, atol=_ROUNDED * most, equal_nan=True))


def _activation(operation: str, values: Array, layers: str | None) -> str | None:
    if operation in _OPERATIONS:
        return _OPERATIONS[operation]
    if _are_shares(values):
        return SOFTMAX
    if layers == SIGMOID and values.size and values.min() >= 0 and values.max() <= 1:
        return SIGMOID
    return None if layers in (SOFTMAX, SIGMOID) else layers


def _are_shares(values: Array) -> bool:
    """Whether the last axis holds several numbers of 0..1 that sum to 1, everywhere."""
    if values.ndim < 2 or values.shape[-1] < 2 or values.dtype != np.float32:
        return False
    sums = values.sum(axis=-1, dtype=np.float64)
    return bool(np.all(values >= 0) and np.allclose(sums, 1, atol=_ATOL))

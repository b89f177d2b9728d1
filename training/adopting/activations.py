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
    try:
        answers = graph(*(tf.constant(as_dtype(rows[each.name], each.dtype)) for each in inputs))
    except tf.errors.OpError:
        return [np.empty(0)] * len(graph.outputs)
    _check_rows(answers, len(next(iter(rows.values()))))
    return [
        (tf.cast(each, tf.float32) if each.dtype.is_floating else each).numpy() for each in answers
    ]


def _check_rows(answers: Sequence[tf.Tensor], asked: int) -> None:
    for place, each in enumerate(answers, start=1):
        if len(each) != asked:
            raise CannotAdopt(
                f"output {place} of the model has {len(each)} rows for {asked} rows of input: "
                f"expected one for each, as those of several requests are asked together"
            )


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

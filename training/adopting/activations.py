"""What each output comes out of: by the graph that computes it, and by its values on some rows.

A layer's `activation` tells of the layer. What a model's own `call` makes of it, a mean over
several models, a softmax that is an operation of its own: only the graph and the values tell.
"""

import keras
import numpy as np

from sluice.wire.tensors import Array
from training.adopting.guessing import layer_activation, operation_of
from training.adopting.rows import Answered

SOFTMAX, SIGMOID = "softmax", "sigmoid"

_OPERATIONS = {"Softmax": SOFTMAX, "Sigmoid": SIGMOID, "Tanh": "tanh"}
_ATOL = 1e-3  # of a sum of probabilities: half precision has no more digits


def activations(model: keras.Model, answered: Answered) -> list[str | None]:
    """Of each output, in the model's order: softmax where it gives probabilities that sum to 1,
    sigmoid, else what Keras calls the last layer's, or None.

    >>> image = keras.Input((4,))
    >>> model = keras.Model(image, keras.ops.softmax(image))
    >>> activations(model, Answered(["Softmax"], [np.float32([[0.5, 0.5]])], alone=False))
    ['softmax']
    """
    return [
        _activation(
            operation,
            values,
            layer_activation(model, place),
            is_known=not isinstance(operation_of(model, place), keras.Model | None),
        )
        for place, (operation, values) in enumerate(
            zip(answered.operations, answered.values, strict=True)
        )
    ]


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

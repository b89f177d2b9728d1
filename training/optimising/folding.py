"""A normalisation's arithmetic, done once on the weights of the layer before it."""

from dataclasses import dataclass

import keras
import numpy as np
from keras import layers

from sluice.wire.tensors import Array
from training.optimising.pairs import KERNELS, Pair


@dataclass(frozen=True)
class Folded:
    """A pair whose layer, with `kernel` for its weights and no bias of its own, needs only `bias`
    added where the normalisation was. Both float32; `weights`: the variable that `kernel` is for.

    >>> Folded(Pair(None, None), None, np.ones((1, 2)), np.zeros(2)).bias.shape
    (2,)
    """

    pair: Pair
    weights: keras.Variable
    kernel: Array
    bias: Array


def fold(pair: Pair) -> Folded:
    """gamma (kernel x + b - mean) / sqrt(variance + epsilon) + beta, as kernel' x + bias'.

    In float64, so that what is rounded is the result alone (Jacob et al., arXiv:1712.05877, 3.2).

    >>> dense, bn = layers.Dense(1), layers.BatchNormalization(epsilon=0)
    >>> model = keras.Sequential([keras.Input((1,)), dense, bn])
    >>> weights = [[4]], [1], [3], [5], [2], [16]  # the last four: gamma, beta, mean, variance
    >>> model.set_weights([np.array(each) for each in weights])
    >>> folded = fold(Pair(dense, bn))
    >>> folded.kernel, folded.bias
    (array([[3.]], dtype=float32), array([4.25], dtype=float32))
    """
    layer, bn = pair.layer, pair.normalisation
    weights = getattr(layer, KERNELS[type(layer)])
    gamma = _values(bn.gamma) if bn.scale else 1.0
    beta = _values(bn.beta) if bn.center else 0.0
    own = _values(layer.bias) if layer.use_bias else 0.0
    scale = gamma / np.sqrt(_values(bn.moving_variance) + bn.epsilon)
    kernel = _values(weights)
    return Folded(
        pair,
        weights,
        (kernel * _along(layer, scale, kernel.shape)).astype(np.float32),
        (beta + (own - _values(bn.moving_mean)) * scale).astype(np.float32),
    )


def _along(layer: keras.Layer, scale: Array, kernel: tuple[int, ...]) -> Array:
    """The scale of each output channel, as its kernel has them."""
    if type(layer) is layers.DepthwiseConv2D:  # [h, w, C, multiplier], channels C * multiplier
        return scale.reshape(kernel[2:])
    return (
        scale[:, np.newaxis] if type(layer) is layers.Conv2DTranspose else scale
    )  # [h, w, out, C]


def _values(variable: keras.Variable) -> Array:
    values: Array = np.asarray(variable.value, np.float64)
    return values

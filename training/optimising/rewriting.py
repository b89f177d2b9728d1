"""A model that computes otherwise while its graph is traced, and afterwards is what it was."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
import tensorflow as tf

from training.explaining.lending import lent
from training.optimising.folding import Folded

_NORMALISING = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.RMSNormalization,
    keras.layers.SpectralNormalization,
    keras.layers.UnitNormalization,
)


class Rewriting:
    """What of a model's layers is replaced: with nothing folded and nothing lowered, nothing.

    >>> from training.optimising.folding import fold
    >>> from training.optimising.pairs import find_pairs
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="dense")])
    >>> model.add(keras.layers.BatchNormalization())
    >>> rewriting = Rewriting(model, [fold(pair) for pair in find_pairs(model)])
    >>> before = len(model.variables), len(rewriting.variables())
    >>> before  # a kernel and a bias, where there were a normalisation's four as well
    (6, 2)
    >>> with rewriting.applied():
    ...     inside = model(tf.ones((1, 2)))
    >>> bool(tf.reduce_all(abs(inside - model(tf.ones((1, 2)))) < 1e-5))
    True
    """

    def __init__(
        self,
        model: keras.Model,
        folded: Sequence[Folded] = (),
        lowered: Sequence[keras.Layer] = (),
        precision: str = "bfloat16",
        *,
        constants: bool = False,
    ) -> None:
        """folded: the normalisations that go into the layer before them.
        lowered: the layers that compute in `precision`, bfloat16 or float16, and keep their weights
        in it.
        constants: whether those weights, and the folded ones, are constants of the graph."""
        self._model, self._folded, self._lowered = model, folded, lowered
        self._precision, self._constants = precision, constants
        self._unread = {
            id(each)
            for one in folded
            for each in (*one.pair.normalisation.variables, *_bias_of(one.pair.layer))
        }
        low = {id(each) for each in lowered}
        kernels = {id(each.weights): each.kernel for each in folded}
        changed = {id(each.weights): each.weights for each in folded}
        half = {id(each): each for layer in lowered for each in _own_weights(layer)}
        self._values = {
            key: (variable, self._weight(kernels.get(key, variable.value), half=key in half))
            for key, variable in (changed | half).items()
            if key not in self._unread
        }
        self._biases = [
            self._weight(each.bias, half=id(each.pair.normalisation) in low) for each in folded
        ]

    def _weight(self, array: Any, *, half: bool) -> tf.Variable | tf.Tensor:
        value = tf.cast(array, self._precision if half else tf.float32)
        # TensorFlow keeps a copy of a constant for every signature, and lays it out once.
        return tf.identity(value) if self._constants else tf.Variable(value, trainable=False)

    def variables(self) -> list[tf.Variable]:
        """All that the rewritten model reads and that are no constants."""
        with self.applied():
            kept = [each.value for each in self._model.variables if id(each) not in self._unread]
        return [each for each in (*kept, *self._biases) if isinstance(each, tf.Variable)]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model is the rewritten one."""
        policy = keras.DTypePolicy(f"mixed_{self._precision}")
        with ExitStack() as inside:
            for variable, value in self._values.values():
                inside.enter_context(lent(variable, _value=value))
            for layer in self._lowered:
                inside.enter_context(lent(layer, _dtype_policy=policy))
            for folded, bias in zip(self._folded, self._biases, strict=True):
                inside.enter_context(lent(folded.pair.layer, use_bias=False, bias=None))
                inside.enter_context(lent(folded.pair.normalisation, call=_adding(bias)))
            yield


def _bias_of(layer: keras.Layer) -> list[keras.Variable]:
    bias = vars(layer).get("bias")
    return [] if bias is None else [bias]


def _own_weights(layer: keras.Layer) -> list[keras.Variable]:
    """Those that a layer in half precision keeps in it: not what normalises, which Keras does in
    float32, nor those of layers within, which speak for themselves."""
    if isinstance(layer, _NORMALISING):
        return []
    own = (*layer._trainable_variables, *layer._non_trainable_variables)
    return [each for each in own if each.dtype == "float32"]


def _adding(bias: tf.Variable) -> Any:
    """What stands for a normalisation's call: TensorFlow joins it to the convolution before."""

    def call(inputs: tf.Tensor, *_: Any, **__: Any) -> tf.Tensor:
        return tf.nn.bias_add(inputs, bias)

    return call

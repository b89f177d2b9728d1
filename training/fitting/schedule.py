"""The learning rate, which Keras asks its schedule for once for each weight that decays."""

from typing import Any

import keras
import tensorflow as tf


class CosineDecayOnce(keras.optimizers.schedules.CosineDecay):  # type: ignore[misc]
    """Keras's, computed once in the graph of a step. Where each weight has its own, a step of
    InceptionV3 has 191 of them to trace, to optimise and to run: a third of its first step.

    A graph is to hold one step: another would get the rate of the first.

    >>> rate = CosineDecayOnce(0.0, 10, warmup_target=1.0, warmup_steps=2)
    >>> @tf.function(autograph=False)
    ... def both(step):
    ...     return rate(step) is rate(step), rate(step)
    >>> [float(value) for value in both(tf.constant(1))]
    [1.0, 0.5]
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._found: dict[tf.Graph, tf.Tensor] = {}  # a few, which the trainer keeps as well

    def __call__(self, step: Any) -> tf.Tensor:
        """The rate at a step: float32 []."""
        if tf.executing_eagerly():
            return super().__call__(step)
        graph = tf.compat.v1.get_default_graph()
        if graph not in self._found:
            self._found[graph] = super().__call__(step)
        return self._found[graph]

"""What one output of a model answers, how it is trained and how it is measured."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from sluice.wire.tensors import Array


@dataclass(frozen=True)
class Classes:
    """A class for each image: output [N, classes] of probabilities, target [N] of class numbers.

    >>> output = np.array([[0.9, 0.1], [0.6, 0.4]])
    >>> Classes(("cat", "dog")).metrics(np.array([0, 1]), output)
    {'accuracy': 0.5, 'per_class': {'cat': 1.0, 'dog': 0.0}}
    """

    labels: tuple[str, ...]  # in the order of the output's last axis
    weight: float = 1.0  # of its loss in the sum over the heads
    measure: ClassVar[str] = "accuracy"
    dtype: ClassVar[type] = np.int64

    def loss(self, target: tf.Tensor, output: tf.Tensor) -> tf.Tensor:
        """Each example's: [N]."""
        return keras.losses.sparse_categorical_crossentropy(target, output)

    def measured(self, target: tf.Tensor, output: tf.Tensor) -> tf.Tensor:
        """Each example's part of `measure`: [N]."""
        return tf.cast(tf.argmax(output, axis=-1) == target, tf.float32)

    def probabilities(self, output: tf.Tensor) -> tf.Tensor:
        """[N, classes], of what the model gives: here, that itself."""
        return output

    def metrics(self, target: Array, output: Array) -> dict[str, Any]:
        """accuracy over all, and each class's recall."""
        correct = output.argmax(-1) == target
        return {
            "accuracy": float(correct.mean()),
            "per_class": {
                label: float(correct[target == number].mean())
                for number, label in enumerate(self.labels)
                if (target == number).any()
            },
        }


@dataclass(frozen=True)
class Logits(Classes):
    """Classes whose output is not yet a probability: the softmax was left to the loss.

    >>> Logits(("cat", "dog")).probabilities(tf.constant([[0.0, 0.0]])).numpy().tolist()
    [[0.5, 0.5]]
    """

    def probabilities(self, output: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(output)


@dataclass(frozen=True)
class Chance(Classes):
    """Two classes, and an output [N, 1]: the probability of the second.

    >>> Chance(("cat", "dog")).probabilities(tf.constant([[0.75]])).numpy().tolist()
    [[0.25, 0.75]]
    """

    def probabilities(self, output: tf.Tensor) -> tf.Tensor:
        return tf.concat([1 - output, output], axis=-1)

    def metrics(self, target: Array, output: Array) -> dict[str, Any]:
        return super().metrics(target, np.concatenate([1 - output, output], axis=-1))


@dataclass(frozen=True)
class Logit(Chance):
    """Two classes, and an output [N, 1] whose sigmoid is the probability of the second.

    >>> Logit(("cat", "dog")).probabilities(tf.constant([[0.0]])).numpy().tolist()
    [[0.5, 0.5]]
    """

    def probabilities(self, output: tf.Tensor) -> tf.Tensor:
        return super().probabilities(tf.sigmoid(output))

    def metrics(self, target: Array, output: Array) -> dict[str, Any]:
        return super().metrics(target, tf.sigmoid(output).numpy())


@dataclass(frozen=True)
class Mask(Classes):
    """A class for each pixel: output [N, H, W, classes], target [N, H, W]; 0 is the ground.

    >>> output = np.array([[[[0.9, 0.1], [0.2, 0.8]]]])
    >>> Mask(("ground", "cat")).metrics(np.array([[[0, 1]]]), output)
    {'accuracy': 1.0, 'iou': 1.0, 'iou_per_class': {'cat': 1.0}}
    """

    def loss(self, target: tf.Tensor, output: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(super().loss(target, output), axis=[1, 2])

    def measured(self, target: tf.Tensor, output: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(super().measured(target, output), axis=[1, 2])

    def metrics(self, target: Array, output: Array) -> dict[str, Any]:
        """accuracy over all pixels; iou: of each class but the ground, and their mean."""
        answered = output.argmax(-1)
        per_class = {
            label: _intersection_over_union(answered == number, target == number)
            for number, label in enumerate(self.labels)
            if number > 0
        }
        return {
            "accuracy": float((answered == target).mean()),
            "iou": float(np.mean([*per_class.values()])),
            "iou_per_class": per_class,
        }


@dataclass(frozen=True)
class Number:
    """One number for each image: output [N, 1], target [N], float32.

    >>> Number().metrics(np.array([1.0, 3.0]), np.array([[1.0], [2.0]]))
    {'absolute_error': 0.5, 'r2': 0.5}
    """

    weight: float = 1.0
    labels: ClassVar[tuple[str, ...]] = ()
    measure: ClassVar[str] = "absolute_error"
    dtype: ClassVar[type] = np.float32

    def loss(self, target: tf.Tensor, output: tf.Tensor) -> tf.Tensor:
        """Squared error, [N]."""
        return tf.square(output[:, 0] - target)

    def measured(self, target: tf.Tensor, output: tf.Tensor) -> tf.Tensor:
        return tf.abs(output[:, 0] - target)

    def metrics(self, target: Array, output: Array) -> dict[str, Any]:
        """absolute_error: its mean; r2: the share of the variance that is explained."""
        error = output[:, 0] - target
        return {
            "absolute_error": float(np.abs(error).mean()),
            "r2": float(1 - np.square(error).mean() / target.var()),
        }


Head = Classes | Number


def naming(heads: Mapping[str, Head]) -> dict[str, Classes]:
    """Those heads that name a class for each image, the one that Classify answers for first.

    >>> list(
    ...     naming({"size": Number(), "mask": Mask(("ground", "cat")), "label": Classes(("cat",))})
    ... )
    ['label']
    """
    return {
        name: head
        for name, head in heads.items()
        if isinstance(head, Classes) and not isinstance(head, Mask)
    }


def _intersection_over_union(answered: Array, true: Array) -> float:
    """Of two boolean arrays, over all their pixels; 1 where both are empty."""
    union = int((answered | true).sum())
    return float((answered & true).sum() / union) if union else 1.0

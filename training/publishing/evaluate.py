"""Trained model and held-out images -> what it is worth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from sluice.wire.tensors import Array
from training.data.dataset import Dataset
from training.inference import predict


@dataclass(frozen=True)
class Evaluation:
    """outputs: each head's on the test split. metrics: by head name, over the test split.

    >>> Evaluation({}, {"coverage": {"r2": 0.9}, "label": {"accuracy": 0.98}}).accuracy
    0.98
    """

    outputs: Mapping[str, Array]
    metrics: Mapping[str, Mapping[str, Any]]

    @property
    def accuracy(self) -> float | None:
        """The first head's that names classes; None where none does."""
        return next(
            (metrics["accuracy"] for metrics in self.metrics.values() if "accuracy" in metrics),
            None,
        )


def evaluate(model: keras.Model, dataset: Dataset) -> Evaluation:
    """What each head answers to the test images, and how good that is.

    >>> from pathlib import Path
    >>> import models
    >>> from training.data.load import load
    >>> from training.recipes import RECIPES
    >>> untrained = models.build("mlp", (8, 8, 1), 10, units=(4,))
    >>> evaluation = evaluate(untrained, load(RECIPES["digits"], None, Path()))
    >>> evaluation.outputs["label"].shape, list(evaluation.metrics["label"])
    ((360, 10), ['accuracy', 'per_class'])
    """
    outputs = predict(model, dataset.test.inputs)
    metrics = {
        name: head.metrics(dataset.test.targets[name], outputs[name])
        for name, head in dataset.heads.items()
    }
    return Evaluation(outputs, metrics)


def commonest(target: Array, labels: Sequence[str]) -> tuple[str, float]:
    """The class that is right most often, and the accuracy of always answering it.

    >>> commonest(np.array([0, 0, 1, 0]), ("cat", "dog"))
    ('cat', 0.75)
    """
    counts = np.bincount(target.reshape(-1), minlength=len(labels))
    return labels[int(counts.argmax())], float(counts.max() / counts.sum())


def confusion(target: Array, output: Array) -> Array:
    """How often class r was taken for class c: [classes, classes].

    >>> confusion(np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])).tolist()
    [[1, 1], [0, 1]]
    """
    classes = output.shape[-1]
    pairs = target.reshape(-1) * classes + output.argmax(-1).reshape(-1)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def worst(target: Array, output: Array, count: int) -> Array:
    """The rows of the wrong answers that were given with the greatest certainty, worst first.

    >>> worst(np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]]), count=2).tolist()
    [1]
    """
    wrong = np.flatnonzero(output.argmax(-1) != target)
    return wrong[np.argsort(-output[wrong].max(-1), kind="stable")[:count]]

"""Trained model and held-out images -> what it is worth."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from training.batches import batches
from training.dataset import Array, Dataset, Split
from training.heads import call

BATCH = 256


@dataclass(frozen=True)
class Evaluation:
    """outputs: each head's on the test split. metrics: by head name, over the test split."""

    outputs: Mapping[str, Array]
    metrics: Mapping[str, Mapping[str, Any]]

    @property
    def accuracy(self) -> float:
        """The first head's."""
        return float(next(iter(self.metrics.values()))["accuracy"])


def evaluate(model: keras.Model, dataset: Dataset) -> Evaluation:
    outputs = predict(model, dataset.test)
    metrics = {name: classification(outputs[name], dataset.test.targets[name], head.labels)
               for name, head in dataset.heads.items()}
    return Evaluation(outputs, metrics)


def predict(model: keras.Model, split: Split) -> dict[str, Array]:
    """Every head's outputs on the whole of `split`, in order."""
    def infer(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        images = {name: tf.cast(image, tf.float32) for name, image in inputs.items()}
        return call(model, images, training=False)

    compiled = tf.function(infer, reduce_retracing=True)
    rows = np.arange(len(split))
    answers = [compiled(inputs) for inputs, _ in batches(split, rows, BATCH)]
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}


def classification(scores: Array, targets: Array, labels: tuple[str, ...]) -> dict[str, Any]:
    """accuracy over all, and each class's recall."""
    correct = scores.argmax(-1) == targets
    return {"accuracy": float(correct.mean()),
            "per_class": {label: float(correct[targets == number].mean())
                          for number, label in enumerate(labels) if (targets == number).any()}}


def confusion(scores: Array, targets: Array) -> Array:
    """How often class r was taken for class c: [classes, classes]."""
    classes = scores.shape[-1]
    pairs = targets.reshape(-1) * classes + scores.argmax(-1).reshape(-1)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)

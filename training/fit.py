"""Model and data -> trained model and its curves."""
from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from training.batches import batches, epoch_order
from training.dataset import Dataset, Head, Split
from training.heads import call
from training.recipes import Recipe

Sums = dict[str, Any]  # what a step adds up: "count", "loss", "<head>_correct", "<head>_total"
Curves = dict[str, list[float]]


@dataclass(frozen=True)
class History:
    """curves: each epoch's means by name, the validation split's under `validation_<name>`."""

    curves: Curves
    seconds: float


def fit(model: keras.Model, dataset: Dataset, recipe: Recipe) -> History:
    """Trains `model` in place."""
    started = time.monotonic()
    batch_size = min(recipe.batch_size, len(dataset.train))
    steps = len(dataset.train) // batch_size
    trainer = Trainer(model, dataset.heads, recipe, steps)
    curves: Curves = {}
    for epoch in range(recipe.epochs):
        print(f"Epoch {epoch + 1}/{recipe.epochs}")
        rows = epoch_order(dataset.train, recipe.seed, epoch, batch_size)
        progress = keras.utils.Progbar(steps)
        sums: Sums = {}
        for step, (inputs, targets) in enumerate(batches(dataset.train, rows, batch_size), 1):
            sums = add(sums, trainer.train_step(inputs, targets))
            if step < steps:
                progress.update(step)
        means = averages(sums) | {
            f"validation_{name}": value
            for name, value in trainer.evaluate(dataset.validation, batch_size).items()}
        progress.update(steps, list(means.items()), finalize=True)
        for name, value in means.items():
            curves.setdefault(name, []).append(value)
    return History(curves, time.monotonic() - started)


class Trainer:
    """The compiled steps of one model."""

    def __init__(self, model: keras.Model, heads: Mapping[str, Head], recipe: Recipe,
                 steps_per_epoch: int) -> None:
        self.model, self.heads = model, heads
        self.augmentation = augmentation(recipe)
        self.optimizer = optimizer(recipe, steps_per_epoch)
        self.optimizer.build(model.trainable_variables)
        self.train_step = tf.function(self._train_step, reduce_retracing=True)
        self.test_step = tf.function(self._test_step, reduce_retracing=True)

    def _train_step(self, inputs: dict[str, tf.Tensor], targets: dict[str, tf.Tensor]) -> Sums:
        inputs = {name: self.augmentation(tf.cast(image, tf.float32), training=True)
                  for name, image in inputs.items()}
        with tf.GradientTape() as tape:
            outputs = call(self.model, inputs, training=True)
            loss = total_loss(self.heads, outputs, targets)
            objective = tf.reduce_mean(loss) + sum(self.model.losses)
        variables = self.model.trainable_variables
        gradients = tape.gradient(objective, [variable.value for variable in variables])
        self.optimizer.apply(gradients, variables)
        return sums_of(self.heads, outputs, targets, loss)

    def _test_step(self, inputs: dict[str, tf.Tensor], targets: dict[str, tf.Tensor]) -> Sums:
        outputs = call(self.model, {name: tf.cast(image, tf.float32)
                                    for name, image in inputs.items()}, training=False)
        return sums_of(self.heads, outputs, targets, total_loss(self.heads, outputs, targets))

    def evaluate(self, split: Split, batch_size: int) -> dict[str, float]:
        sums: Sums = {}
        for inputs, targets in batches(split, np.arange(len(split)), batch_size):
            sums = add(sums, self.test_step(inputs, targets))
        return averages(sums)


def augmentation(recipe: Recipe) -> keras.Model:
    """Keras layers for training alone: the published model does not hold them."""
    layers: list[keras.Layer] = []
    if recipe.flip:
        layers.append(keras.layers.RandomFlip("horizontal", seed=recipe.seed))
    if recipe.shift:
        layers.append(keras.layers.RandomTranslation(
            recipe.shift, recipe.shift, fill_mode="constant", seed=recipe.seed))
    return keras.Sequential([*layers, keras.layers.Identity()], name="augmentation")


def optimizer(recipe: Recipe, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    steps = recipe.epochs * steps_per_epoch
    warm_up = max(1, steps // 20)
    rate = keras.optimizers.schedules.CosineDecay(
        recipe.learning_rate / 100, max(1, steps - warm_up),
        warmup_target=recipe.learning_rate, warmup_steps=warm_up)
    return keras.optimizers.AdamW(rate, weight_decay=recipe.weight_decay)


def total_loss(heads: Mapping[str, Head], outputs: Mapping[str, Any],
               targets: Mapping[str, Any]) -> Any:
    """Each example's weighted sum over the heads: [N]."""
    losses = []
    for name, head in heads.items():
        loss = keras.losses.sparse_categorical_crossentropy(targets[name], outputs[name])
        flat = tf.reshape(loss, [tf.shape(loss)[0], -1])  # per pixel: [N, H * W]
        losses.append(head.loss_weight * tf.reduce_mean(flat, axis=1))
    return tf.add_n(losses)


def sums_of(heads: Mapping[str, Head], outputs: Mapping[str, Any], targets: Mapping[str, Any],
            loss: Any) -> Sums:
    sums: Sums = {"loss": (tf.reduce_sum(loss), tf.size(loss))}
    for name in heads:
        correct = tf.argmax(outputs[name], axis=-1) == targets[name]
        sums[f"{name}_accuracy"] = (tf.reduce_sum(tf.cast(correct, tf.float32)), tf.size(correct))
    return sums


def add(left: Sums, right: Sums) -> Sums:
    if not left:
        return right
    return {name: (left[name][0] + right[name][0], left[name][1] + right[name][1])
            for name in right}


def averages(sums: Sums) -> dict[str, float]:
    return {name: float(total) / max(1, int(count)) for name, (total, count) in sums.items()}

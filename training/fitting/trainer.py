"""The compiled steps of one model on the replicas of a strategy.

A step of our own, because Keras 3.15's `fit` fails under MultiWorkerMirroredStrategy (docs/
training.md), and one step for all is one thing to understand.
"""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from models.adversarial import GAN
from training.data.dataset import Split
from training.data.heads import Head
from training.fitting.batches import Rows, batches
from training.inference import call
from training.recipes import Recipe

Tensors = Mapping[str, Any]
Sums = dict[str, Any]  # (weighted sum, weight) by measure
Means = dict[str, float]


class Trainer:
    """Trains `model`, which was built in the strategy's scope, in the precision it was built in."""

    def __init__(
        self,
        model: keras.Model,
        recipe: Recipe,
        heads: Mapping[str, Head],
        strategy: tf.distribute.Strategy,
        batch_size: int,
        steps_per_epoch: int,
    ) -> None:
        self.model, self.heads = model, heads
        self.strategy, self.batch_size = strategy, batch_size
        with strategy.scope():
            self.augmentation = augmentation(recipe)
            self.optimizer = optimizer(recipe, steps_per_epoch, model.compute_dtype)
            self.optimizer.build(self.model.trainable_variables)
        self.train_step = tf.function(self._train_step, reduce_retracing=True)
        self.test_step = tf.function(self._test_step, reduce_retracing=True)

    @property
    def variables(self) -> list[keras.Variable]:
        """All that a run's next epoch depends on: weights, optimizer, random states."""
        return [*self.model.variables, *self.augmentation.variables, *self.optimizer.variables]

    def train(self, split: Split, rows: Rows, progress: keras.utils.Progbar) -> Means:
        sums: Sums = {}
        for step, batch in enumerate(batches(split, rows, self.strategy), 1):
            sums = add(sums, self.train_step(*batch))
            if step < len(rows):
                progress.update(step)
        return averages(sums)

    def evaluate(self, split: Split, rows: Rows) -> Means:
        sums: Sums = {}
        for batch in batches(split, rows, self.strategy):
            sums = add(sums, self.test_step(*batch))
        return averages(sums)

    def _train_step(self, inputs: Tensors, targets: Tensors, weights: Any) -> Sums:
        return self.summed(self.strategy.run(self.learn, (inputs, targets, weights)))

    def _test_step(self, inputs: Tensors, targets: Tensors, weights: Any) -> Sums:
        return self.summed(self.strategy.run(self.look, (inputs, targets, weights)))

    def summed(self, sums: Sums) -> Sums:
        return {
            name: tuple(self.strategy.reduce("SUM", part, axis=None) for part in parts)
            for name, parts in sums.items()
        }

    def learn(self, inputs: Tensors, targets: Tensors, weights: Any) -> Sums:
        """On one replica; the optimizer adds the replicas' gradients up."""
        inputs = {
            name: self.augmentation(tf.cast(image, tf.float32), training=True)
            for name, image in inputs.items()
        }
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            outputs = call(self.model, inputs, training=True)
            losses = self.losses(inputs, outputs, targets)
            mean = tf.reduce_sum(losses * weights) / self.batch_size
            extra = sum(self.model.losses) / self.strategy.num_replicas_in_sync
            scaled = self.optimizer.scale_loss(mean + extra)
        self.optimizer.apply(tape.gradient(scaled, [each.value for each in variables]), variables)
        return measures(self.heads, outputs, targets, losses, weights)

    def look(self, inputs: Tensors, targets: Tensors, weights: Any) -> Sums:
        inputs = {name: tf.cast(image, tf.float32) for name, image in inputs.items()}
        outputs = call(self.model, inputs, training=False)
        losses = weighted_losses(self.heads, outputs, targets)
        return measures(self.heads, outputs, targets, losses, weights)

    def losses(self, inputs: Tensors, outputs: Tensors, targets: Tensors) -> Any:
        """Each example's loss: [N]. A GAN's two players have one for the whole batch."""
        if isinstance(self.model, GAN):
            loss = self.model.compute_loss(inputs["image"], targets["label"], dict(outputs))
            # Keras divides its losses by the replicas, which `learn` does as well.
            mean = loss * self.strategy.num_replicas_in_sync
            return tf.fill([tf.shape(targets["label"])[0]], mean)
        return weighted_losses(self.heads, outputs, targets)


def augmentation(recipe: Recipe) -> keras.Model:
    """Keras layers for training alone: the published model does not hold them."""
    layers: list[keras.Layer] = []
    if recipe.flip:
        layers.append(keras.layers.RandomFlip("horizontal", seed=recipe.seed))
    if recipe.shift:
        layers.append(
            keras.layers.RandomTranslation(
                recipe.shift, recipe.shift, fill_mode="constant", seed=recipe.seed
            )
        )
    return keras.Sequential([*layers, keras.layers.Identity()], name="augmentation")


def optimizer(
    recipe: Recipe, steps_per_epoch: int, compute_dtype: str
) -> keras.optimizers.Optimizer:
    steps = recipe.epochs * steps_per_epoch
    warm_up = max(1, steps // 20)
    rate = keras.optimizers.schedules.CosineDecay(
        recipe.learning_rate / 100,
        max(1, steps - warm_up),
        warmup_target=recipe.learning_rate,
        warmup_steps=warm_up,
    )
    adam = keras.optimizers.AdamW(rate, weight_decay=recipe.weight_decay, beta_1=recipe.beta_1)
    # float16 has no number for gradients below 6e-8, so that they are scaled up first.
    return keras.optimizers.LossScaleOptimizer(adam) if compute_dtype == "float16" else adam


def weighted_losses(heads: Mapping[str, Head], outputs: Tensors, targets: Tensors) -> Any:
    """Each example's sum over the heads: [N]."""
    return tf.add_n(
        [head.weight * head.loss(targets[name], outputs[name]) for name, head in heads.items()]
    )


def measures(
    heads: Mapping[str, Head], outputs: Tensors, targets: Tensors, losses: Any, weights: Any
) -> Sums:
    values = {"loss": losses} | {
        f"{name}_{head.measure}": head.measured(targets[name], outputs[name])
        for name, head in heads.items()
    }
    return {
        name: (tf.reduce_sum(value * weights), tf.reduce_sum(weights))
        for name, value in values.items()
    }


def add(left: Sums, right: Sums) -> Sums:
    if not left:
        return right
    return {
        name: (left[name][0] + right[name][0], left[name][1] + right[name][1]) for name in right
    }


def averages(sums: Sums) -> Means:
    return {name: float(total) / max(1.0, float(weight)) for name, (total, weight) in sums.items()}

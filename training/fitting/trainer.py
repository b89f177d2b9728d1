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
from training.fitting.schedule import CosineDecayOnce
from training.inference import call
from training.recipes import Recipe

Means = dict[str, float]  # by measure: `loss`, and each head's `<head>_<measure>`

_ByName = Mapping[str, tf.Tensor]  # of each input, head or target
_Sums = dict[str, tuple[Any, Any]]  # (weighted sum, weight) by measure


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
        self.batch_size = batch_size
        self._model, self._heads, self._strategy = model, heads, strategy
        with strategy.scope():
            self._augmentation = _augmentation(recipe)
            self._optimizer = _optimizer(recipe, steps_per_epoch, model.compute_dtype)
            # Now and not at its first step: a run that is resumed fills its variables before that.
            self._optimizer.build(self._model.trainable_variables)
        self._train_step = tf.function(self._learn_everywhere, reduce_retracing=True)
        self._test_step = tf.function(self._look_everywhere, reduce_retracing=True)

    @property
    def variables(self) -> list[keras.Variable]:
        """All that a run's next epoch depends on: weights, optimizer, random states."""
        return [*self._model.variables, *self._augmentation.variables, *self._optimizer.variables]

    def train(self, split: Split, rows: Rows, progress: keras.utils.Progbar) -> Means:
        """Learn from `rows`, [steps, batch_size]; the means over them as they were learnt from."""
        # Numbers stay where they were computed until the end: reading one waits for its step.
        sums: _Sums = {}
        for step, batch in enumerate(batches(split, rows, self._strategy), 1):
            sums = _add(sums, self._train_step(*batch))
            if step < len(rows):  # the last one is shown with the validation's means, by fit
                progress.update(step)
        return _averages(sums)

    def evaluate(self, split: Split, rows: Rows) -> Means:
        """The means over `rows`, [steps, batch_size]."""
        sums: _Sums = {}
        for batch in batches(split, rows, self._strategy):
            sums = _add(sums, self._test_step(*batch))
        return _averages(sums)

    def _learn_everywhere(self, *batch: Any) -> _Sums:
        return self._summed(self._strategy.run(self._learn, batch))

    def _look_everywhere(self, *batch: Any) -> _Sums:
        return self._summed(self._strategy.run(self._look, batch))

    def _summed(self, sums: _Sums) -> _Sums:
        return {
            name: tuple(self._strategy.reduce("SUM", part, axis=None) for part in parts)
            for name, parts in sums.items()
        }

    def _learn(self, inputs: _ByName, targets: _ByName, weights: tf.Tensor) -> _Sums:
        """On one replica; the optimizer adds the replicas' gradients up."""
        inputs = {
            name: self._augmentation(tf.cast(image, tf.float32), training=True)
            for name, image in inputs.items()
        }
        variables = self._model.trainable_variables
        with tf.GradientTape() as tape:
            outputs = call(self._model, inputs, training=True)
            losses = self._losses(inputs, outputs, targets)
            mean = tf.reduce_sum(losses * weights) / self.batch_size
            # What layers add (a penalty on their weights) is the same on each, and counts once.
            extra = sum(self._model.losses) / self._strategy.num_replicas_in_sync
            scaled = self._optimizer.scale_loss(mean + extra)
        self._optimizer.apply(tape.gradient(scaled, [each.value for each in variables]), variables)
        return _measures(self._heads, outputs, targets, losses, weights)

    def _look(self, inputs: _ByName, targets: _ByName, weights: tf.Tensor) -> _Sums:
        inputs = {name: tf.cast(image, tf.float32) for name, image in inputs.items()}
        outputs = call(self._model, inputs, training=False)
        losses = _weighted_losses(self._heads, outputs, targets)
        return _measures(self._heads, outputs, targets, losses, weights)

    def _losses(self, inputs: _ByName, outputs: _ByName, targets: _ByName) -> tf.Tensor:
        """Each example's loss: [N]. A GAN's two players have one for the whole batch."""
        if isinstance(self._model, GAN):
            loss = self._model.compute_loss(inputs["image"], targets["label"], dict(outputs))
            # Keras divides its losses by the replicas, which `_learn` does as well.
            mean = loss * self._strategy.num_replicas_in_sync
            return tf.fill([tf.shape(targets["label"])[0]], mean)
        return _weighted_losses(self._heads, outputs, targets)


def _augmentation(recipe: Recipe) -> keras.Model:
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


def _optimizer(
    recipe: Recipe, steps_per_epoch: int, compute_dtype: str
) -> keras.optimizers.Optimizer:
    steps = recipe.epochs * steps_per_epoch
    warm_up = max(1, steps // 20)
    rate = CosineDecayOnce(
        recipe.learning_rate / 100,
        max(1, steps - warm_up),
        warmup_target=recipe.learning_rate,
        warmup_steps=warm_up,
    )
    adam = keras.optimizers.AdamW(rate, weight_decay=recipe.weight_decay, beta_1=recipe.beta_1)
    # float16 has no number for gradients below 6e-8, so that they are scaled up first.
    return keras.optimizers.LossScaleOptimizer(adam) if compute_dtype == "float16" else adam


def _weighted_losses(heads: Mapping[str, Head], outputs: _ByName, targets: _ByName) -> tf.Tensor:
    """Each example's sum over the heads: [N]."""
    return tf.add_n(
        [head.weight * head.loss(targets[name], outputs[name]) for name, head in heads.items()]
    )


def _measures(
    heads: Mapping[str, Head],
    outputs: _ByName,
    targets: _ByName,
    losses: tf.Tensor,
    weights: tf.Tensor,
) -> _Sums:
    values = {"loss": losses} | {
        f"{name}_{head.measure}": head.measured(targets[name], outputs[name])
        for name, head in heads.items()
    }
    return {
        name: (tf.reduce_sum(value * weights), tf.reduce_sum(weights))
        for name, value in values.items()
    }


def _add(left: _Sums, right: _Sums) -> _Sums:
    if not left:
        return right
    return {
        name: (left[name][0] + right[name][0], left[name][1] + right[name][1]) for name in right
    }


def _averages(sums: _Sums) -> Means:
    return {name: float(total) / max(1.0, float(weight)) for name, (total, weight) in sums.items()}

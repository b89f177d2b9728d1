"""The training of a generator against a discriminator, as one `keras.Model`."""

from typing import Any

import keras
from keras import ops

Tensor = Any  # symbolic while the graph is built, the backend's own while it trains
Verdict = dict[str, Tensor]


@keras.saving.register_keras_serializable("sluice")
class GAN(keras.Model):  # type: ignore[misc]
    """Both players in one model: `compile(optimizer)`, then `fit(images, labels)`.

    Every step trains both. Each player sees the other held still, so the gradient of the summed
    loss is, weight by weight, that of the weight's own player, and one Adam does what one for each
    would do. Only `compute_loss` is ours: as the rest of the step is Keras's, every strategy, mixed
    precision and checkpoint works. Called on images, the model answers as the discriminator.

    >>> from models.gan import gan
    >>> players = gan((8, 8, 1), classes=3, width=4)
    >>> players.draw(ops.arange(2)).shape
    TensorShape([2, 8, 8, 1])
    """

    def __init__(
        self, generator: keras.Model, discriminator: keras.Model, name: str = "gan", **kwargs: Any
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.generator = generator
        self.discriminator = discriminator
        self.noise = keras.random.SeedGenerator()
        self.real_loss = keras.losses.BinaryCrossentropy()
        self.label_loss = keras.losses.SparseCategoricalCrossentropy()
        self.label_accuracy = keras.metrics.SparseCategoricalAccuracy(name="label_accuracy")
        self.told_apart = keras.metrics.BinaryAccuracy(name="told_apart")
        self.built = True

    @property
    def parts(self) -> dict[str, keras.Model]:
        """What is published: each player is a model of its own."""
        return {"generator": self.generator, "discriminator": self.discriminator}

    def call(self, image: Tensor, training: bool = False) -> Verdict:
        verdict: Verdict = self.discriminator(image, training=training)
        return verdict

    def compute_loss(
        self,
        x: Tensor = None,
        y: Tensor = None,
        y_pred: Verdict | None = None,
        sample_weight: Tensor = None,
        training: bool = True,
    ) -> Tensor:
        """x [N, H, W, C]: real images, y [N]: their labels, y_pred: the verdict on them."""
        drawn = self.draw(y, training)
        on_real = self(x, training=training) if y_pred is None else y_pred
        on_drawn = self(ops.stop_gradient(drawn), training=training)
        on_rival = self._held_verdict(drawn, training)

        self.label_accuracy.update_state(y, on_real["label"], sample_weight)
        for verdict, real in ((on_real, 1.0), (on_drawn, 0.0)):
            self.told_apart.update_state(ops.full_like(verdict["real"], real), verdict["real"])

        answers = ((on_real, 1.0), (on_drawn, 0.0), (on_rival, 1.0))
        return sum(self._verdict_loss(*answer, y, sample_weight) for answer in answers)

    def draw(self, label: Tensor, training: bool = False) -> Tensor:
        """label [N] -> an image of each [N, H, W, C] of 0..255, from fresh noise."""
        shape = (ops.shape(label)[0], self.generator.input_shape[0][-1])
        noise = keras.random.normal(shape, seed=self.noise)
        return self.generator([noise, ops.convert_to_tensor(label)], training=training)

    def _held_verdict(self, image: Tensor, training: bool) -> Verdict:
        """The discriminator's verdict, with no gradient to its weights."""
        held = [ops.stop_gradient(weight) for weight in self.discriminator.trainable_variables]
        state = self.discriminator.non_trainable_variables
        verdict: Verdict
        verdict, _ = self.discriminator.stateless_call(held, state, image, training=training)
        return verdict

    def _verdict_loss(
        self, verdict: Verdict, real: float, label: Tensor, sample_weight: Tensor
    ) -> Tensor:
        wanted = ops.full_like(verdict["real"], real)
        return self.real_loss(wanted, verdict["real"], sample_weight) + self.label_loss(
            label, verdict["label"], sample_weight
        )

    def get_config(self) -> dict[str, Any]:
        parts = {
            name: keras.saving.serialize_keras_object(part) for name, part in self.parts.items()
        }
        return {**super().get_config(), **parts}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "GAN":
        parts = {
            name: keras.saving.deserialize_keras_object(config[name], custom_objects)
            for name in ("generator", "discriminator")
        }
        return cls(**{**config, **parts})

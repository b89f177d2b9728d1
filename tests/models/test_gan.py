import keras
import numpy as np
import pytest
import tensorflow as tf

import models
from models.adversarial import GAN

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0, 255, (6, 8, 8, 1)).astype("float32")
LABELS = np.array([0, 1, 2, 0, 1, 2], "int32")


@pytest.fixture
def gan() -> GAN:
    keras.utils.set_random_seed(0)
    return models.build("gan", (8, 8, 1), 3, latent=5, width=4, dropout=0.0)


def test_it_draws_raw_pixels_of_what_it_is_asked_for(gan: GAN) -> None:
    drawn = gan.draw(LABELS)
    assert drawn.shape == IMAGES.shape
    assert 0 <= np.min(drawn) < np.max(drawn) <= 255


def test_each_player_gets_the_gradient_of_its_own_loss_alone(gan: GAN) -> None:
    """Against the two losses of the paper, each differentiated for its own player."""
    gan.noise.state.assign([1, 2])
    with tf.GradientTape() as tape:
        loss = gan.compute_loss(IMAGES, LABELS, gan(IMAGES, training=True))
    together = tape.gradient(loss, gan.trainable_weights)

    gan.noise.state.assign([1, 2])
    with tf.GradientTape(persistent=True) as tape:
        drawn = gan.draw(LABELS, training=True)
        real, fake = gan.discriminator(IMAGES), gan.discriminator(drawn)
        ones, zeros = np.ones((6, 1)), np.zeros((6, 1))
        judging = (
            keras.losses.BinaryCrossentropy()(ones, real["real"])
            + keras.losses.BinaryCrossentropy()(zeros, fake["real"])
            + keras.losses.SparseCategoricalCrossentropy()(LABELS, real["label"])
            + keras.losses.SparseCategoricalCrossentropy()(LABELS, fake["label"])
        )
        drawing = keras.losses.BinaryCrossentropy()(
            ones, fake["real"]
        ) + keras.losses.SparseCategoricalCrossentropy()(LABELS, fake["label"])
    apart = tape.gradient(drawing, gan.generator.trainable_weights) + tape.gradient(
        judging, gan.discriminator.trainable_weights
    )

    for one, other in zip(together, apart, strict=True):
        np.testing.assert_allclose(*map(tf.convert_to_tensor, (one, other)), rtol=1e-4, atol=1e-6)


def test_fit_and_evaluate_report_the_class_head(gan: GAN) -> None:
    gan.compile(keras.optimizers.Adam(1e-3), run_eagerly=True)
    before = [weight.numpy() for weight in gan.trainable_weights]
    history = gan.fit(IMAGES, LABELS, batch_size=3, verbose=0).history
    assert set(history) == {"loss", "label_accuracy", "told_apart"}
    assert all(
        (old != new.numpy()).any() for old, new in zip(before, gan.trainable_weights, strict=True)
    )
    assert set(gan.evaluate(IMAGES, LABELS, verbose=0, return_dict=True)) == set(history)


def test_a_seed_repeats_a_training() -> None:
    def losses() -> list[float]:
        keras.utils.set_random_seed(3)
        gan = models.build("gan", (8, 8, 1), 3, latent=5, width=4)
        gan.compile(keras.optimizers.Adam(1e-3), run_eagerly=True)
        return gan.fit(IMAGES, LABELS, batch_size=3, verbose=0).history["loss"]

    assert losses() == pytest.approx(losses(), rel=1e-5)

"""Our networks and `keras.applications`' give the same outputs from the same weights."""

from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras.applications import inception_v3, resnet, vgg16, vgg19

import models

PEERS: dict[str, tuple[Callable[..., keras.Model], Callable[[np.ndarray], np.ndarray], int]] = {
    "vgg16": (vgg16.VGG16, vgg16.preprocess_input, 224),
    "vgg19": (vgg19.VGG19, vgg19.preprocess_input, 224),
    "resnet50": (resnet.ResNet50, resnet.preprocess_input, 224),
    "resnet101": (resnet.ResNet101, resnet.preprocess_input, 224),
    "resnet152": (resnet.ResNet152, resnet.preprocess_input, 224),
    "inception_v3": (inception_v3.InceptionV3, inception_v3.preprocess_input, 299),
}


def settle(model: keras.Model, images: np.ndarray, rng: np.random.Generator) -> None:
    """Give a fresh network biases that differ, and batch statistics that keep the signal alive.

    Fresh ones are all 0 or 1, which hides a swapped pair, and lets every image end in one answer.
    """
    for weight in model.trainable_weights:
        if len(weight.shape) == 1:
            weight.assign(weight + rng.uniform(0, 0.1, weight.shape))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(images, training=True)


def assert_equal_to_peer(name: str, side: int, classes: int) -> None:
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    make_peer, prepare, _ = PEERS[name]
    brightness = np.array([50, 150, 250]).reshape(3, 1, 1, 1)
    prepared = prepare((rng.uniform(0, 1, (3, side, side, 3)) * brightness).astype("float32"))

    peer = make_peer(weights=None, input_shape=(side, side, 3), classes=classes)
    settle(peer, prepared, rng)
    ours = models.build(name, (side, side, 3), classes, preprocess="none")
    ours.set_weights(peer.get_weights())

    expected = peer(prepared).numpy()
    apart = np.ptp(expected, axis=0) / expected.mean(axis=0)
    assert apart.max() > 0.01, "one answer to every image proves nothing"
    np.testing.assert_allclose(ours(prepared), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["vgg16", "resnet50", "inception_v3"])
def test_same_outputs_on_small_images(name: str) -> None:
    assert_equal_to_peer(name, side=75, classes=10)


@pytest.mark.slow
@pytest.mark.parametrize("name", PEERS)
def test_same_outputs_at_full_size(name: str) -> None:
    assert_equal_to_peer(name, side=PEERS[name][-1], classes=1000)

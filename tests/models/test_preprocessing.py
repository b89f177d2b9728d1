import numpy as np
import pytest
from keras.applications import imagenet_utils

import models
from models.preprocessing import preprocessing

PIXELS = np.random.default_rng(0).uniform(0, 255, (2, 5, 4, 3)).astype("float32")


def run(mode: str, pixels: np.ndarray) -> np.ndarray:
    x = pixels
    for layer in preprocessing(mode, pixels.shape[-1]):
        x = layer(x)
    return np.asarray(x)


@pytest.mark.parametrize("mode", ["tf", "torch", "caffe"])
def test_the_conventions_are_those_of_keras_applications(mode: str) -> None:
    expected = imagenet_utils.preprocess_input(PIXELS.copy(), mode=mode)
    np.testing.assert_allclose(run(mode, PIXELS), expected, rtol=1e-5, atol=1e-6)


def test_unit_and_none() -> None:
    np.testing.assert_allclose(run("unit", PIXELS), PIXELS / 255, rtol=1e-6)
    assert run("none", PIXELS) is PIXELS


@pytest.mark.parametrize("mode", ["unit", "tf", "torch", "caffe", "none"])
def test_a_grey_image_keeps_its_one_channel(mode: str) -> None:
    assert run(mode, PIXELS[..., :1]).shape == (2, 5, 4, 1)


def test_an_unknown_mode_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no preprocessing 'caffee'; known: none, unit, tf"):
        models.build("vgg16", (32, 32, 3), 2, width=2, preprocess="caffee")

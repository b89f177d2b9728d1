import functools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras

import models
from training.build import build
from training.data.dataset import Dataset
from training.data.load import load
from training.data.sources import digits, fashion
from training.fitting.checkpoint import Progress
from training.publishing.evaluate import evaluate
from training.publishing.publish import publish
from training.publishing.report import TrainingRun
from training.recipes import RECIPES
from training.settings import configure

QUICKLY = {
    "digits": {"epochs": 15},
    "fashion": {"limit": 4000, "epochs": 3, "units": 32},
    "vit_small": {"limit": 4000, "epochs": 5},
}


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """A slice of the digits: real images, few enough for two steps."""
    whole = digits.load(RECIPES["digits"], None)
    return Dataset(
        whole.train.take(slice(96)),
        whole.validation.take(slice(32)),
        whole.test.take(slice(64)),
        whole.heads,
        whole.origin,
    )


@pytest.fixture(scope="session")
def model(dataset: Dataset) -> keras.Model:
    keras.utils.set_random_seed(1)
    return models.build(
        "cnn_functional", input_shape=dataset.input_shape, classes=10, filters=4, units=8
    )


@pytest.fixture(scope="session")
def run_of(model: keras.Model, dataset: Dataset):
    """What `publish` takes, of a model that was not trained."""

    def make(model: keras.Model = model, dataset: Dataset = dataset) -> TrainingRun:
        return TrainingRun(
            RECIPES["digits"], Progress({"loss": [2.0, 1.0]}, 0.1), evaluate(model, dataset)
        )

    return make


@pytest.fixture(scope="session")
def version(model: keras.Model, dataset: Dataset, run_of, tmp_path_factory) -> Path:
    """A published version directory; not to be written to."""
    return publish(model, dataset, run_of(), tmp_path_factory.mktemp("repository"), "digits")


@pytest.fixture(scope="session")
def quickly_trained(tmp_path_factory) -> Callable[[str], tuple[keras.Model, Dataset]]:
    """`quickly_trained(recipe)`, of QUICKLY: what it comes to in seconds, and its images."""

    @functools.cache
    def train(name: str) -> tuple[keras.Model, Dataset]:
        recipe = configure(name, QUICKLY[name])
        if recipe.source == "fashion" and not fashion.DEBIAN_FOLDER.exists():
            pytest.skip("Fashion-MNIST is not here: apt-get install dataset-fashion-mnist")
        dataset = load(recipe, None, tmp_path_factory.mktemp("workspace"))
        keras.utils.set_random_seed(recipe.seed)
        model = build(recipe, dataset)
        model.compile(
            keras.optimizers.Adam(recipe.learning_rate), "sparse_categorical_crossentropy"
        )
        images, targets = dataset.train.inputs["image"], dataset.train.targets["label"]
        model.fit(images, targets, batch_size=64, epochs=recipe.epochs, verbose=0)
        return model, dataset

    return train

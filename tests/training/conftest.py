import os
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras

import models
from training.data.dataset import Dataset
from training.data.sources import digits
from training.fitting.checkpoint import Progress
from training.publishing.evaluate import evaluate
from training.publishing.publish import publish
from training.publishing.report import TrainingRun
from training.recipes import RECIPES


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

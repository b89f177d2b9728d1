"""Operations between a model's layers, which Keras writes into an HDF5 file and cannot read."""

import json
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from training.adopting.loading import load


@pytest.mark.parametrize(
    "after",
    [
        lambda x: x[:, 1:],
        lambda x: (x + 1.0) * x - 2.0,
        lambda x: x / keras.ops.sum(x, axis=-1, keepdims=True),
        lambda x: keras.ops.concatenate([x, keras.ops.softmax(x)]),
        lambda x: layers.Softmax()(layers.Add()([x, x])),
        lambda x: layers.Multiply()([keras.ops.maximum(x, 0.5), x]),
    ],
)
def test_an_hdf5_file_with_operations_is_read(tmp_path: Path, after) -> None:
    given = keras.Input((4,), name="x")
    model = keras.Model(given, after(layers.Dense(3)(given)))
    model.save(tmp_path / "own.h5")
    loaded = load(tmp_path / "own.h5", None, allow_code=False)
    rows = np.random.default_rng(0).random((2, 4))
    assert np.allclose(loaded(rows), model(rows))


def test_a_layer_of_keras_2_0_that_is_called_as_an_operation_is_the_layer(tmp_path: Path) -> None:
    """It had no dtype yet."""
    given = keras.Input((4,), name="x")
    model = keras.Model(given, layers.Add(name="add")([given, layers.Dense(4)(given)]))
    file = tmp_path / "old.h5"
    model.save(file)
    with h5py.File(file, "r+") as opened:
        config = json.loads(opened.attrs["model_config"])
        for layer in config["config"]["layers"]:
            if layer["class_name"] == "Add":
                layer["config"] = {"name": "add", "trainable": True}
        opened.attrs["model_config"] = json.dumps(config)
    rows = np.random.default_rng(0).random((2, 4))
    assert np.allclose(load(file, None, allow_code=False)(rows), model(rows))

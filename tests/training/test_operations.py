"""Operations between a model's layers, which Keras writes into an HDF5 file and cannot read."""

from pathlib import Path

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

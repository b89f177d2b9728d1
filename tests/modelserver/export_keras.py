"""`python export_keras.py FILE.h5 DIR`: DIR/1 as Keras exports it, DIR/sample.npz with x and y."""

import sys
from pathlib import Path

import keras
import numpy as np


def main(file, directory):
    model = keras.models.load_model(file, compile=False)
    model.export(str(Path(directory, "1")), verbose=False)
    x = np.random.default_rng(7).random((3, *model.input_shape[1:]), np.float32)
    np.savez(Path(directory, "sample.npz"), x=x, y=np.asarray(model(x, training=False)))


if __name__ == "__main__":
    main(*sys.argv[1:])

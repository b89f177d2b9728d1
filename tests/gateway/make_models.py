"""Write the SavedModels that joined requests are tried on: `python make_models.py DIR`.

picky  y = 2x, and refuses values over 100
liar   y = the first three of x, whatever its signature says of rows
swap   y = x + version, in three versions
"""

import sys
from pathlib import Path

import tensorflow as tf

VECTOR = tf.TensorSpec([None], tf.float32, name="x")


class Picky(tf.Module):
    @tf.function(input_signature=[VECTOR])
    def predict(self, x):
        assertion = tf.debugging.Assert(tf.reduce_all(x <= 100), ["too large:", x], summarize=9)
        with tf.control_dependencies([assertion]):
            return {"y": x * 2}


class Liar(tf.Module):
    @tf.function(input_signature=[VECTOR])
    def predict(self, x):
        return {"y": x[:3]}


class Swap(tf.Module):
    def __init__(self, version):
        super().__init__()
        self.version = tf.Variable(float(version))

    @tf.function(input_signature=[VECTOR])
    def predict(self, x):
        return {"y": x + self.version}


def main(root):
    swaps = {f"swap/{version}": Swap(version) for version in (1, 2, 3)}
    for path, module in {"picky/1": Picky(), "liar/1": Liar(), **swaps}.items():
        signatures = {"serving_default": module.predict}
        tf.saved_model.save(module, str(Path(root, path)), signatures=signatures)


if __name__ == "__main__":
    main(sys.argv[1])

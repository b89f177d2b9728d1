"""Write the SavedModels that the twin's own tests need: `python make_models.py DIR`.

slow    y = x after steps[0] rounds of work that TensorFlow cannot skip
dtypes  every dtype that a placeholder takes, as it came in
uneven  outputs that are not batched as the input is
wide    y = x for x [N, length], any length
heavy   y = x, with 20 MB of weights
"""

import sys
from pathlib import Path

import tensorflow as tf

DTYPES = [
    tf.float16,
    tf.bfloat16,
    tf.float32,
    tf.float64,
    tf.int8,
    tf.int16,
    tf.int32,
    tf.int64,
    tf.uint8,
    tf.uint16,
    tf.uint32,
    tf.uint64,
    tf.bool,
    tf.complex64,
    tf.complex128,
    tf.string,
]


def spec(shape, dtype, name):
    return tf.TensorSpec(shape, dtype, name=name)


class Slow(tf.Module):
    @tf.function(input_signature=[spec([None], tf.float32, "x"), spec([None], tf.int32, "steps")])
    def predict(self, x, steps):
        work = tf.random.uniform([200, 200])
        for _ in tf.range(steps[0]):
            work = tf.nn.l2_normalize(tf.linalg.matmul(work, work))
        return {"y": x + 0.0 * work[0, 0]}


class Dtypes(tf.Module):
    @tf.function
    def predict(self, **inputs):
        return {name: tf.identity(value) for name, value in inputs.items()}


class Uneven(tf.Module):
    @tf.function(input_signature=[spec([None], tf.float32, "x")])
    def predict(self, x):
        return {"y": x, "total": tf.reduce_sum(x, keepdims=True)}


class Wide(tf.Module):
    @tf.function(input_signature=[spec([None, None], tf.float32, "x")])
    def predict(self, x):
        return {"y": x}


class Heavy(tf.Module):
    def __init__(self):
        super().__init__()
        self.weights = tf.Variable(tf.ones([5_000_000]))

    @tf.function(input_signature=[spec([None], tf.float32, "x")])
    def predict(self, x):
        return {"y": x * self.weights[-1]}


def main(root):
    for name, module in {
        "slow": Slow(),
        "uneven": Uneven(),
        "wide": Wide(),
        "heavy": Heavy(),
    }.items():
        tf.saved_model.save(
            module, str(Path(root, name, "1")), signatures={"serving_default": module.predict}
        )
    dtypes = Dtypes()
    predict = dtypes.predict.get_concrete_function(
        **{dtype.name: spec(None, dtype, dtype.name) for dtype in DTYPES}
    )
    tf.saved_model.save(
        dtypes, str(Path(root, "dtypes", "1")), signatures={"serving_default": predict}
    )


if __name__ == "__main__":
    main(sys.argv[1])

"""Write the SavedModels that the twin's own tests need: `python make_models.py DIR`.

slow    y = x after steps[0] rounds of work that TensorFlow cannot skip
dtypes  every dtype that a placeholder takes, as it came in
uneven  outputs that are not batched as the input is
wide    y = x for x [N, length], any length
files   y = how bright each of these PNG files is, [N,1]
heavy   y = x, with 20 MB of weights
convolutions  one a signature: what must be of a shape or a rank, said or only to be found out
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


def a_filter(*shape):
    return tf.random.stateless_normal(shape, (1, 2))


# By signature of Convolutions: the shape that it declares.
DECLARED = {
    "fixed": [None, 8, 8, 1],
    "open": [None, None, None, 3],
    "scaled": None,  # its rank is that of the convolution behind a division
    "single": None,  # one picture, to which an axis is added
    "line": None,
    "volume": None,
    "upwards": None,
    "dense": None,
    "free": None,  # takes any rank
}


class Convolutions(tf.Module):
    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(a_filter(3, 3, 1, 4))

    def fixed(self, x):
        return self.conv(x)

    def open(self, x):
        return tf.nn.conv2d(tf.nn.max_pool2d(x, 2, 2, "SAME"), a_filter(3, 3, 3, 4), 1, "VALID")

    def scaled(self, x):
        return self.conv(tf.cast(x, tf.float32) / 255.0)

    def single(self, x):
        return self.conv(x[tf.newaxis])

    def line(self, x):
        return tf.nn.conv1d(x, a_filter(3, 2, 4), 1, "SAME")

    def volume(self, x):
        return tf.nn.conv3d(x, a_filter(2, 2, 2, 1, 4), [1] * 5, "SAME")

    def upwards(self, x):
        shape = tf.concat([tf.shape(x)[:1], [8, 8, 1]], 0)
        return tf.nn.conv2d_transpose(x, a_filter(3, 3, 1, 4), shape, 1)

    def dense(self, x):
        return tf.raw_ops.MatMul(a=tf.nn.relu(x), b=a_filter(4, 2))

    def free(self, x):
        return x + 1

    @tf.function(autograph=False)
    def conv(self, x):
        return tf.nn.bias_add(tf.nn.conv2d(x, self.kernel, 1, "SAME"), tf.ones(4))

    @tf.function(input_signature=[spec([None], tf.string, "inputs")])
    def classify(self, inputs):
        feature = tf.io.FixedLenFeature([8, 8, 1], tf.float32)
        x = tf.io.parse_example(inputs, {"x": feature})["x"]
        return {"scores": tf.reduce_mean(self.conv(x), [1, 2])}

    @tf.function(input_signature=[spec([None], tf.string, "inputs")])
    def regress(self, inputs):
        return {"outputs": self.classify(inputs)["scores"][:, :1]}

    def signatures(self):
        found = {"classify": self.classify, "regress": self.regress}
        for name, shape in DECLARED.items():
            function = tf.function(lambda x, name=name: {"y": getattr(self, name)(x)})
            found[name] = function.get_concrete_function(x=spec(shape, tf.float32, "x"))
        return found


class Files(tf.Module):
    @tf.function(input_signature=[spec([None], tf.string, "x")])
    def predict(self, x):
        def brightness(file):
            return tf.reduce_mean(tf.cast(tf.io.decode_png(file), tf.float32))

        return {"y": tf.map_fn(brightness, x, fn_output_signature=tf.float32)[:, None]}


def main(root):
    for name, module in {
        "slow": Slow(),
        "uneven": Uneven(),
        "wide": Wide(),
        "files": Files(),
        "heavy": Heavy(),
    }.items():
        tf.saved_model.save(
            module, str(Path(root, name, "1")), signatures={"serving_default": module.predict}
        )
    convolutions = Convolutions()
    tf.saved_model.save(
        convolutions,
        str(Path(root, "convolutions", "1")),
        signatures=convolutions.signatures(),
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

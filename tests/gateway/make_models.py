"""Write SavedModels with a character of their own: `python make_models.py DIR`.

picky  y = 2x, and refuses values over 100
liar   y = the first three of x, whatever its signature says of rows
swap   y = x + version, in three versions
why    the brightest third of a picture [N,6,6,1], and a map of the third that is asked about
whys   the same of two pictures and a number, by two heads, from pixels alone
bytes  the sum of two pictures [N,2,2,1] and a number; 1,000 more where `pixels` is asked, which its
       version 2, in later/bytes, has not
"""

import sys
from pathlib import Path

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

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


THIRDS = tf.constant([["left", "middle", "right"]])


def asks(name):
    return tf.TensorSpec([None], tf.int32, name=name)


def thirds(image):
    """How bright each third is: [N,6,6,1] -> [N,3]."""
    columns = tf.reduce_mean(image, axis=[1, 3])
    return tf.nn.softmax(tf.reduce_mean(tf.reshape(columns, [-1, 3, 2]), 2) / 20)


def decoded(files):
    def one(file):
        picture = tf.io.decode_image(file, channels=1, expand_animations=False)
        return tf.image.resize(
            tf.reshape(picture, tf.concat([tf.shape(picture)[:2], [1]], 0)), [6, 6]
        )

    return tf.map_fn(one, files, tf.TensorSpec([6, 6, 1], tf.float32))


def explained(scores, asked, **images):
    """By output name: the class, its score, and each picture where it is of that third."""
    chosen = tf.where(asked < 0, tf.argmax(scores, 1, tf.int32), asked)
    third = tf.repeat(tf.one_hot(chosen, 3), 2, axis=1)[:, None, :]
    maps = {name: image[..., 0] / 255 * third for name, image in images.items()}
    return maps | {"class": chosen, "score": tf.gather(scores, chosen, batch_dims=1)}


class Why(tf.Module):
    IMAGE = tf.TensorSpec([None, 6, 6, 1], tf.float32, name="image")
    FILE = tf.TensorSpec([None], tf.string, name="image")

    @tf.function(input_signature=[IMAGE])
    def serving_default(self, image):
        return {"label": thirds(image)}

    @tf.function(input_signature=[FILE])
    def encoded(self, image):
        scores = thirds(decoded(image))
        best = tf.math.top_k(scores, 2)
        labels = tf.gather(THIRDS[0], best.indices)
        return {"label": scores, "label_classes": labels, "label_scores": best.values}

    @tf.function(input_signature=[IMAGE, asks("class_")])
    def explain(self, image, asked):
        return explained(thirds(image), asked, heatmap=image)

    @tf.function(input_signature=[FILE, asks("class_")])
    def explain_encoded(self, image, asked):
        image = decoded(image)
        return explained(thirds(image), asked, heatmap=image)


class Whys(tf.Module):
    PIXELS = tuple(
        tf.TensorSpec([None, 6, 6, 1], tf.float32, name=name) for name in ("above", "below")
    )
    SIZE = tf.TensorSpec([None, 1], tf.float32, name="size")

    @tf.function(input_signature=[*PIXELS, SIZE])
    def serving_default(self, above, below, size):
        return {"first": thirds(above), "second": thirds(below), "size": size}

    @tf.function(input_signature=[*PIXELS, SIZE, asks("first_class"), asks("second_class")])
    def explain(self, above, below, _size, first, second):
        maps = {"heatmap_above": above, "heatmap_below": below}
        asked = {"first": first, "second": second}
        scores = {"first": thirds(above), "second": thirds(below)}
        return {
            f"{head}_{name}": array
            for head in scores
            for name, array in explained(scores[head], asked[head], **maps).items()
        }


class Bytes(tf.Module):
    FLOATS, UINT8 = (
        [tf.TensorSpec([None, 2, 2, 1], dtype, name=name) for name in ("above", "below")]
        for dtype in (tf.float32, tf.uint8)
    )
    SIZE = tf.TensorSpec([None, 1], tf.float32, name="size")

    @tf.function(input_signature=[*FLOATS, SIZE])
    def serving_default(self, above, below, size):
        return {"sum": tf.reduce_sum(above + below, axis=[1, 2, 3]) + size[:, 0]}

    @tf.function(input_signature=[*UINT8, SIZE])
    def pixels(self, above, below, size):
        pictures = (tf.cast(each, tf.float32) for each in (above, below))
        return {"sum": self.serving_default(*pictures, size)["sum"] + 1000}


def main(root):
    swaps = {f"swap/{version}": Swap(version) for version in (1, 2, 3)}
    for path, module in {"picky/1": Picky(), "liar/1": Liar(), **swaps}.items():
        signatures = {"serving_default": module.predict}
        tf.saved_model.save(module, str(Path(root, path)), signatures=signatures)
    for path, module in {"why/1": Why(), "whys/1": Whys()}.items():
        names = ("serving_default", "encoded", "explain", "explain_encoded")
        signatures = {name: getattr(module, name) for name in names if hasattr(module, name)}
        tf.saved_model.save(module, str(Path(root, path)), signatures=signatures)
        rename(Path(root, path, "saved_model.pb"), "class_", "class")
    sums = Bytes()
    default = {"serving_default": sums.serving_default}
    tf.saved_model.save(sums, str(Path(root, "bytes/1")), {**default, "pixels": sums.pixels})
    tf.saved_model.save(sums, str(Path(root, "later/bytes")), default)


def rename(path, argument, name):
    """Call the inputs as TensorFlow calls none: by a word of Python's own."""
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for signature in saved.meta_graphs[0].signature_def.values():
        if argument in signature.inputs:
            signature.inputs[name].CopyFrom(signature.inputs.pop(argument))
    path.write_bytes(saved.SerializeToString())


if __name__ == "__main__":
    main(sys.argv[1])

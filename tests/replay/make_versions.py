"""Versions of `digits` with a fault each, beside a sound one: `python make_versions.py FROM DIR`.

1 and 2 are the published one; 3 has its labels turned by one, 4 answers NaN for dark pictures,
5 calls its output otherwise, 6 refuses bright pictures, 7 has no memory for them.
"""

import shutil
import sys
from pathlib import Path

import tensorflow as tf

SOUND = (1, 2)


def turned(outputs, _):
    return {name: tf.roll(each, 1, axis=1) for name, each in outputs.items()}


def dark_is_nan(outputs, image):
    dark = tf.reduce_mean(tf.cast(image, tf.float32), axis=[1, 2, 3]) < 60
    nan = tf.constant(float("nan"))
    return {name: tf.where(dark[:, None], nan, each) for name, each in outputs.items()}


def renamed(outputs, _):
    return {f"{name}_0": each for name, each in outputs.items()}


def picky(outputs, image):
    bright = tf.reduce_mean(tf.cast(image, tf.float32), axis=[1, 2, 3]) > 90
    refuse = tf.debugging.Assert(~tf.reduce_any(bright), ["too bright"])
    with tf.control_dependencies([refuse]):
        return {name: tf.identity(each) for name, each in outputs.items()}


def hungry(outputs, image):
    bright = tf.reduce_any(tf.reduce_mean(tf.cast(image, tf.float32), axis=[1, 2, 3]) > 90)
    much = tf.random.uniform([tf.where(bright, tf.constant(2**46, tf.int64), 1)])
    more = tf.where(bright, tf.reduce_max(much), 0)
    return {name: each + more for name, each in outputs.items()}


FAULTS = {3: turned, 4: dark_is_nan, 5: renamed, 6: picky, 7: hungry}


class Faulty(tf.Module):
    def __init__(self, sound, fault):
        super().__init__()
        self.sound = sound
        self.signature = self.wrapped(self.sound.signatures["serving_default"], fault)

    @staticmethod
    def wrapped(signature, fault):
        image = signature.structured_input_signature[1]["image"]

        @tf.function(input_signature=[tf.TensorSpec(image.shape, image.dtype, name="image")])
        def call(image):
            return fault(signature(image=image), image)

        return call


def main():
    published, directory = Path(sys.argv[1]), Path(sys.argv[2])
    for number in SOUND:
        shutil.copytree(published / "1", directory / "digits" / str(number))
    sound = tf.saved_model.load(str(published / "1"))
    for number, fault in FAULTS.items():
        faulty = Faulty(sound, fault)
        version = directory / "digits" / str(number)
        tf.saved_model.save(faulty, str(version), {"serving_default": faulty.signature})


if __name__ == "__main__":
    main()

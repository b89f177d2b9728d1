"""Write SavedModels that answer with the pixels they see: `-m tests.pictures.make_model DIR`.

mirror      as Sluice reads pictures
old-mirror  as it did before docs/decisions/0016-what-a-picture-is.md; its versions are still served
"""

import sys
from pathlib import Path

import tensorflow as tf

from sluice.wire.contract import DEFAULT_SIGNATURE, ENCODED_SIGNATURE
from tests.pictures.corpus import HEIGHT, WIDTH
from training.decoding import decode_images

SHAPE = (HEIGHT, WIDTH, 3)


class Mirror(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, *SHAPE], tf.float32, name="image")])
    def predict(self, image):
        return {"pixels": tf.identity(image)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image")])
    def predict_encoded(self, image):
        return {"pixels": decode_images(image, SHAPE)}


class OldMirror(Mirror):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image")])
    def predict_encoded(self, image):
        def decode(content):
            pixels = tf.io.decode_image(content, channels=3, expand_animations=False)
            pixels = tf.image.resize(pixels, SHAPE[:2], antialias=True)
            return tf.ensure_shape(pixels, SHAPE)

        return {"pixels": tf.map_fn(decode, image, fn_output_signature=tf.float32)}


def main(directory):
    for name, model in {"mirror": Mirror(), "old-mirror": OldMirror()}.items():
        signatures = {DEFAULT_SIGNATURE: model.predict, ENCODED_SIGNATURE: model.predict_encoded}
        tf.saved_model.save(model, str(Path(directory, name, "1")), signatures=signatures)


if __name__ == "__main__":
    main(sys.argv[1])

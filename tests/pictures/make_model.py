"""Write a SavedModel that answers with the pixels it sees: `-m tests.pictures.make_model DIR`."""

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


def main(directory):
    model = Mirror()
    signatures = {DEFAULT_SIGNATURE: model.predict, ENCODED_SIGNATURE: model.predict_encoded}
    tf.saved_model.save(model, str(Path(directory, "1")), signatures=signatures)


if __name__ == "__main__":
    main(sys.argv[1])

"""`python run_saved_model.py DIR`: run DIR/1 by plain TensorFlow; in and out to sample.npz."""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf


def main(directory):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta_graph = tf.compat.v1.saved_model.load(session, ["serve"], str(Path(directory, "1")))
        signature = meta_graph.signature_def["serving_default"]
        [(name, info)] = signature.inputs.items()
        shape = [dim.size if dim.size > 0 else 2 for dim in info.tensor_shape.dim]
        x = np.random.default_rng(7).random(shape, np.float32)
        outputs = {key: output.name for key, output in signature.outputs.items()}
        results = session.run(outputs, {info.name: x})
    np.savez(
        Path(directory, "sample.npz"),
        **{f"in {name}": x},
        **{f"out {key}": value for key, value in results.items()},
    )


if __name__ == "__main__":
    main(sys.argv[1])

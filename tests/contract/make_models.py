"""Write the recorded models, each with a graph in bfloat16 and one in float16 beside its own.

python make_models.py DIR        # as tests/conformance/make_models.py
"""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from training.publishing import joining

CONFORMANCE = Path(__file__).parents[1] / "conformance" / "make_models.py"
PRECISIONS = {"bf16": tf.bfloat16, "gpu": tf.float16}
Tensors = dict[str, tf.Tensor]


def main(root: Path) -> None:
    recorded = runpy.run_path(str(CONFORMANCE))
    recorded["main"](root)
    for version in root.glob("*/[0-9]"):
        whole = tf.saved_model.load(str(version))
        for tag, precision in PRECISIONS.items():
            write(whole, precision, version.parent / tag)
            joining.join(version, version.parent / tag, ("serve", tag))
        for method in ("classify", "regress"):
            recorded["set_method"](version, method, method)


def write(whole: tf.Module, precision: tf.DType, directory: Path) -> None:
    module = tf.Module()
    module.whole = whole
    signatures = {name: rounded(each, precision) for name, each in whole.signatures.items()}
    tf.saved_model.save(module, str(directory), signatures=signatures)


def rounded(function: Callable[..., Tensors], precision: tf.DType) -> object:
    """The same signature, whose float32 numbers are rounded on their way in and out."""

    def in_half(tensors: Tensors) -> Tensors:
        return {
            name: tf.cast(tf.cast(each, precision), each.dtype)
            if each.dtype == tf.float32
            else each
            for name, each in tensors.items()
        }

    _, specs = function.structured_input_signature
    call = tf.function(lambda **inputs: in_half(function(**in_half(inputs))))
    return call.get_concrete_function(**specs)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

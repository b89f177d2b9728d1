"""One file on disk to the pixels that a published model makes of it."""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import tensorflow as tf

from sluice.pictures.decoding import Unreadable, for_graph
from sluice.wire.tensors import Array
from training.decoding import decode_image

Shape = tuple[int, int, int]

# What TensorFlow says of an operation that fails, without the operation.
_REASON = re.compile(r"(?:assertion failed: \[|\}\}\s*)([^\[\]{}\n]+)")


def read_picture(path: Path, shape: Shape) -> Array:
    """uint8 [H, W, C], by the way of the gateway: what the graph does not read becomes PNG before.

    Raises Unreadable, with the reason.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "grey.png")
    ...     _ = path.write_bytes(tf.io.encode_png(tf.constant([[[7]]], tf.uint8)).numpy())
    ...     read_picture(path, (1, 2, 1)).tolist()
    [[[7], [7]]]
    """
    try:
        image = _decoder(shape)(tf.constant(for_graph(path.read_bytes())))
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from error
    except tf.errors.InvalidArgumentError as error:
        reason = _REASON.search(error.message)
        said = reason[1].strip() if reason else " ".join(error.message.split())
        raise Unreadable(said or "it is damaged") from error
    return np.asarray(tf.round(image)).astype(np.uint8)


@cache
def _decoder(shape: Shape) -> Callable[[tf.Tensor], tf.Tensor]:
    """`decode_image` as a graph, in which many threads can be at the same time."""
    return tf.function(  # type: ignore[no-any-return]
        lambda content: decode_image(content, shape),
        input_signature=[tf.TensorSpec([], tf.string)],
        autograph=False,
    )

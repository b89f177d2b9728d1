"""The bytes of a file in TensorFlow's ops: numbers at places, and refusals."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import tensorflow as tf

CPU = "/device:CPU:0"
_LEFT_ALONE = {"_noinline": True, "_tf_data_function": True}
_PADDING = 512  # zeros behind a file, which whoever reads on runs into


class Content:
    """One file. Places and numbers are int64; behind the end stand zeros.

    >>> content = Content(tf.constant(b"BM" + bytes([3, 1])))
    >>> int(content.number(2, 2)), bool(content.starts_with(b"BM"))
    (259, True)
    """

    def __init__(self, text: tf.Tensor) -> None:
        self.text = text  # string []
        self.size = tf.cast(tf.strings.length(text), tf.int64)
        self._bytes = tf.io.decode_raw(tf.strings.join([text, bytes(_PADDING)]), tf.uint8)

    def number(self, at: tf.Tensor | int, size: int, *, big: bool | tf.Tensor = False) -> tf.Tensor:
        """Unsigned, of `size` bytes, the last byte first unless `big`."""
        return tf.reduce_sum(tf.cast(self._slice(at, size), tf.int64) * weights(size, big))

    def starts_with(self, mark: bytes, at: tf.Tensor | int = 0) -> tf.Tensor:
        """Whether these bytes stand there: bool []."""
        return tf.reduce_all(self._slice(at, len(mark)) == tf.constant([*mark], tf.uint8))

    def _slice(self, at: tf.Tensor | int, size: int) -> tf.Tensor:
        if isinstance(at, int):
            return self._bytes[at : at + size]
        return tf.slice(self._bytes, [tf.minimum(at, self.size)], [size])

    def rows(self, start: tf.Tensor, end: tf.Tensor, width: int) -> tf.Tensor:
        """The bytes between two places in whole rows: int64 [N, width]."""
        end = tf.clip_by_value(end, 0, self.size)
        start = tf.clip_by_value(start, 0, end)
        end = end - (end - start) % width
        return tf.cast(tf.reshape(self._bytes[start:end], [-1, width]), tf.int64)

    def every(self, step: int, at: tf.Tensor, most: int) -> tf.Tensor:
        """The bytes at `at`, `at + step`, …: uint8 [N], N up to `most`."""
        return self._bytes[at : at + step * most : step]

    def between(self, start: tf.Tensor | int, end: tf.Tensor | int) -> tf.Tensor:
        """The bytes between two places: string []."""
        start = tf.clip_by_value(tf.cast(start, tf.int64), 0, self.size)
        end = tf.clip_by_value(tf.cast(end, tf.int64), start, self.size)
        return tf.strings.substr(self.text, start, end - start)


def weights(size: int, big: bool | tf.Tensor) -> tf.Tensor:
    """What each byte of a number counts: int64 [size].

    >>> weights(2, big=True).numpy().tolist()
    [256, 1]
    """
    little = [256**each for each in range(size)]
    if isinstance(big, bool):
        return tf.constant(little[::-1] if big else little, tf.int64)
    return tf.where(big, tf.constant(little[::-1], tf.int64), tf.constant(little, tf.int64))


def refuse_unless(condition: tf.Tensor | bool, message: str | tf.Tensor) -> tf.Operation:
    """InvalidArgumentError with the message; to be a control dependency of what comes after.

    >>> refuse_unless(tf.constant(True), "expected a picture") is None
    True
    """
    return tf.debugging.Assert(condition, [message])


def apart(function: Callable[..., Any]) -> Any:
    """A decorator: traced once for all models, and one node of the graph that calls it.

    Otherwise TensorFlow goes through every node of every format that a file is not of. On the CPU,
    where the bytes are: a GPU would be sent each number of a header.

    It is optimised when its first file comes, as all that is called. TensorFlow does so before too,
    for each signature and whatever its files are: a third of what a small model takes to start. It
    does not with the functions of tf.data, of which this is called one (MetaOptimizer,
    IsTFDataFunction).

    >>> int(apart(lambda text: tf.strings.length(text))(tf.constant(b"abc")))
    3
    """

    @wraps(function)
    def on_cpu(text: tf.Tensor) -> Any:
        with tf.device(CPU):
            return function(text)

    return tf.function(on_cpu, autograph=False, experimental_attributes=_LEFT_ALONE)

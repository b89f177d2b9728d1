"""The network of `encoded` behind a queue: TensorFlow joins what several calls have decoded."""

from collections.abc import Callable, Collection, Mapping

import keras
import numpy as np
import tensorflow as tf

from sluice.wire.tensors import Array
from training.data.dataset import Arrays
from training.inference import answering, predict

Tensors = dict[str, tf.Tensor]

_THREADS = 0  # that run what was joined; 0: as many as TensorFlow finds to be best while it serves
# How much waits, and of how large calls, is for the server to say.
_MOST_WAITING = 2**20  # batches
_MOST_ROWS = 2**30  # of a call
_RTOL, _ATOL = 1e-3, 1e-5


def why_not(model: keras.Model, images: Collection[str], rows: Arrays) -> str:
    """Why the calls of `encoded` are not to be joined behind their decoding; "" where they are.

    images: the inputs that are sent as files. rows: [N, ...] by input name, to try.
    What was joined fails as one, so that nothing may be in it whose values or size make a network
    fail: numbers in floating point of one size alone.

    >>> image, word = (
    ...     keras.Input((4, 4, 1), name="image"),
    ...     keras.Input((), name="word", dtype="int32"),
    ... )
    >>> both = keras.Model([image, word], keras.layers.Flatten()(image))
    >>> why_not(both, ["image"], {})
    'word is int32, of which one number can make all fail'
    """
    if not images:
        return "it takes no files"
    for each in answering(model).inputs:
        if None in each.shape[1:]:
            return f"{each.name} may be of several sizes"
        if each.name not in images and not tf.as_dtype(each.dtype).is_floating:
            return f"{each.name} is {each.dtype}, of which one number can make all fail"
    alone, beside = (
        predict(model, {name: array[[0, place]] for name, array in rows.items()})
        for place in (0, -1)
    )
    for name, answer in alone.items():
        if not _are_alike(answer[0], beside[name][0]):
            return f"{name} of a row is another beside other rows"
    return ""


def _are_alike(one: Array, other: Array) -> bool:
    """But for rounding: both are of two rows, which are computed alike."""
    if one.dtype.kind != "f":
        return np.array_equal(one, other)
    return np.allclose(one, other, _RTOL, _ATOL * np.abs(one).max(initial=1))


def joined(
    network: Callable[..., Tensors], inputs: Mapping[str, tf.Tensor], rows: int, name: str
) -> Tensors:
    """What `network(**inputs)` answers, which is asked for up to `rows` rows of several calls at
    once, and for a call of more rows several times.

    name: of the queue, one for each signature: what has the same name in a session is one queue,
    whatever is behind it.

    >>> ask = tf.function(lambda x: joined(lambda x: {"y": 2 * x}, {"x": x}, 4, "twice"))
    >>> ask(tf.ones((6, 2)))["y"].shape
    TensorShape([6, 2])
    """
    given = {key: tf.ensure_shape(each, each.shape) for key, each in inputs.items()}
    computed = tf.function(
        lambda *values: network(**dict(zip(given, values, strict=True)))
    ).get_concrete_function(*(tf.TensorSpec(each.shape, each.dtype) for each in given.values()))
    outputs = tf.raw_ops.BatchFunction(
        in_tensors=[*given.values()],
        captured_tensors=computed.captured_inputs,
        f=computed,
        Tout=[each.dtype for each in computed.outputs],
        num_batch_threads=_THREADS,
        max_batch_size=_MOST_ROWS,
        # Of what is run; each size is one of them, so that nothing is filled up.
        allowed_batch_sizes=[*range(1, rows + 1)],
        enable_large_batch_splitting=True,
        batch_timeout_micros=0,
        max_enqueued_batches=_MOST_WAITING,
        shared_name=name,
        batching_queue=name,
    )
    count = tf.shape(next(iter(given.values())))[:1]
    shaped = [
        _of_shape(output, count, each.shape)
        for output, each in zip(outputs, computed.outputs, strict=True)
    ]
    answer: Tensors = tf.nest.pack_sequence_as(computed.structured_outputs, shaped)
    return answer


def _of_shape(output: tf.Tensor, count: tf.Tensor, shape: tf.TensorShape) -> tf.Tensor:
    """Which the operation does not tell, and of no rows does not keep."""
    if shape[1:].is_fully_defined():
        output = tf.reshape(output, tf.concat([count, shape[1:]], axis=0))
    output.set_shape(shape)
    return output

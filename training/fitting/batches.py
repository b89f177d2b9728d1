"""Splits -> tf.data pipelines, dealt out to the replicas of a strategy.

The order of an epoch depends on the seed and the epoch's number alone, so that a resumed run sees
what an uninterrupted one sees, and several machines together what one machine sees.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from sluice.wire.tensors import Array
from training.data.dataset import Split

Rows = npt.NDArray[np.int64]
_PADDING = -1


def shuffled_rows(split: Split, batch_size: int, seed: int, epoch: int) -> Rows:
    """One epoch's batches, without those rows too few for a last one: [steps, batch_size].

    >>> split = Split({"image": np.zeros((7, 8, 8, 1), np.uint8)}, {"label": np.arange(7)})
    >>> shuffled_rows(split, batch_size=3, seed=0, epoch=0).shape
    (2, 3)
    """
    rows = np.random.default_rng([seed, epoch]).permutation(len(split))
    steps = len(rows) // batch_size
    return rows[: steps * batch_size].reshape(steps, batch_size)


def ordered_rows(split: Split, batch_size: int) -> Rows:
    """Every row once, the last batch filled up with _PADDING: [steps, batch_size].

    >>> split = Split({"image": np.zeros((4, 8, 8, 1), np.uint8)}, {"label": np.arange(4)})
    >>> ordered_rows(split, batch_size=3).tolist()
    [[0, 1, 2], [3, -1, -1]]
    """
    rows = np.arange(len(split))
    padding = np.full(-len(rows) % batch_size, _PADDING)
    return np.concatenate([rows, padding]).reshape(-1, batch_size)


def batches(split: Split, rows: Rows, strategy: tf.distribute.Strategy) -> Any:
    """(inputs, targets, weights [N]) of each batch, a replica's share each; _PADDING weighs 0.

    >>> split = Split({"image": np.zeros((3, 8, 8, 1), np.uint8)}, {"label": np.arange(3)})
    >>> for _, targets, weights in batches(
    ...     split, ordered_rows(split, batch_size=2), tf.distribute.get_strategy()
    ... ):
    ...     print(targets["label"].numpy(), weights.numpy())
    [0 1] [1. 1.]
    [2 0] [1. 0.]
    """
    replicas = strategy.num_replicas_in_sync

    def dealt(context: tf.distribute.InputContext) -> tf.data.Dataset:
        shares = rows.reshape(len(rows), replicas, -1)
        workers = np.array_split(shares, context.num_input_pipelines, axis=1)
        mine = workers[context.input_pipeline_id]  # [steps, replicas of this worker, share]
        return _pipeline(split, mine.reshape(-1, mine.shape[-1]))

    return strategy.distribute_datasets_from_function(dealt)


def _pipeline(split: Split, rows: Rows) -> tf.data.Dataset:
    """Gather from the arrays where they are, so that memory (or a file) holds them once."""
    arrays = {**split.inputs, **split.targets}
    types = [tf.as_dtype(array.dtype) for array in arrays.values()]

    def gather(batch: Rows) -> list[Array]:
        return [array[batch] for array in arrays.values()]

    def fetch(batch: tf.Tensor) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor], tf.Tensor]:
        values = tf.numpy_function(gather, [tf.maximum(batch, 0)], types)
        for value, array in zip(values, arrays.values(), strict=True):
            value.set_shape([rows.shape[1], *array.shape[1:]])
        named = dict(zip(arrays, values, strict=True))
        return (
            {name: named[name] for name in split.inputs},
            {name: named[name] for name in split.targets},
            tf.cast(batch != _PADDING, tf.float32),
        )

    indices = tf.data.Dataset.from_tensor_slices(rows)
    return indices.map(fetch, num_parallel_calls=2, deterministic=True).prefetch(4)

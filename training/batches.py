"""Splits -> tf.data pipelines. The order of an epoch depends on the seed and its number alone,
so that a resumed run sees what an uninterrupted one sees."""
from __future__ import annotations

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from training.dataset import Split

Rows = npt.NDArray[np.int64]


def epoch_order(split: Split, seed: int, epoch: int, batch_size: int) -> Rows:
    """All rows, shuffled, without those too few for a last batch: [steps * batch_size]."""
    rows = np.random.default_rng([seed, epoch]).permutation(len(split))
    return rows[:len(rows) // batch_size * batch_size]


def batches(split: Split, rows: Rows, batch_size: int) -> tf.data.Dataset:
    """(inputs, targets) by name; gathered from the arrays, so that memory holds them once."""
    arrays = {**split.inputs, **split.targets}
    names = list(arrays)
    types = [tf.as_dtype(array.dtype) for array in arrays.values()]

    def gather(batch: Rows) -> list[npt.NDArray[np.generic]]:
        return [array[batch] for array in arrays.values()]

    def fetch(batch: tf.Tensor) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        values = tf.numpy_function(gather, [batch], types)
        for value, array in zip(values, arrays.values(), strict=True):
            value.set_shape([None, *array.shape[1:]])
        named = dict(zip(names, values, strict=True))
        return ({name: named[name] for name in split.inputs},
                {name: named[name] for name in split.targets})

    indices = tf.data.Dataset.from_tensor_slices(rows).batch(batch_size)
    return indices.map(fetch, num_parallel_calls=2, deterministic=True).prefetch(2)

"""The arithmetic of a batch: runs become one, its outputs theirs again; a large run, several.

numpy joins and slices; what it does not do is put the result where TensorFlow reads it without
another copy (`_concatenate`), pad, fill up, and tell an output whose rows are not the batch's.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from service.modelserver.batching_options import BatchingOptions
from service.modelserver.errors import FailedPrecondition, InvalidArgument
from service.modelserver.servable import Run, Tensors
from sluice.wire.tensors import Array

TENSOR_ALIGNMENT = 64  # bytes; TensorFlow reads an array where it lies if it begins at a multiple


def rows_of(run: Run) -> int:
    """The first dimension, which all inputs share. Raises InvalidArgument where they do not."""
    if any(array.ndim == 0 for array in run.feeds.values()):
        raise InvalidArgument(
            "Batching session Run() input tensors must have at least one dimension"
        )
    sizes = {len(array) for array in run.feeds.values()} or {0}
    if len(sizes) > 1:
        raise InvalidArgument(
            "Batching session Run() input tensors must have equal 0th-dimension "
            f"size; got {sorted(sizes)}"
        )
    return sizes.pop()


def split(run: Run, sizes: Sequence[int]) -> Iterator[Run]:
    """A run for each of the sizes, which are the whole run's rows."""
    if len(sizes) == 1:
        yield run
        return
    for rows in _slices(sizes):
        yield Run({name: array[rows] for name, array in run.feeds.items()}, run.fetches)


def glue(outputs: Sequence[Tensors]) -> Tensors:
    """The outputs of a run that was split. Raises FailedPrecondition where they do not fit."""
    glued = {}
    for name in outputs[0]:
        arrays = [tensors[name] for tensors in outputs]
        if len({array.shape[1:] for array in arrays}) > 1:
            raise FailedPrecondition(
                f"Batched output tensor {name} cannot be put together again: "
                f"its parts have the shapes {[array.shape for array in arrays]}"
            )
        glued[name] = _concatenate(arrays)
    return glued


def join(runs: Sequence[Run], options: BatchingOptions) -> Run:
    """One run of them all, padded and filled up as the options say."""
    if len(runs) == 1 and not options.allowed_sizes:
        return runs[0]  # as it is: no copy
    rows = sum(map(_count, runs))
    filling = _batch_size(rows, options) - rows
    feeds = {}
    for name in runs[0].feeds:
        arrays = [run.feeds[name] for run in runs]
        if options.pad_variable_lengths:
            arrays = _pad(arrays)
        # Rows that are known to be valid inputs, as TensorFlow Serving fills up.
        feeds[name] = _concatenate([*arrays, *[arrays[-1][:1]] * filling])
    return Run(feeds, runs[0].fetches)


def share_out(outputs: Tensors, runs: Sequence[Run], options: BatchingOptions) -> list[Tensors]:
    """Each run's share of what the joined run gave. Raises FailedPrecondition."""
    counts = [_count(run) for run in runs]
    check_rows(outputs, _batch_size(sum(counts), options))
    return [{name: array[rows] for name, array in outputs.items()} for rows in _slices(counts)]


def check_rows(outputs: Tensors, expected: int) -> None:
    """Raises FailedPrecondition for an output whose rows are not this batch's."""
    for name, array in outputs.items():
        if array.ndim == 0:
            raise FailedPrecondition(f"Batched output tensor {name} has 0 dimensions")
        if len(array) != expected:
            raise FailedPrecondition(
                f"Batched output tensor {name}'s 0th dimension ({len(array)}) does not equal the "
                f"sum of the 0th dimension sizes of the input tensors ({expected})"
            )


def _concatenate(arrays: Sequence[Array]) -> Array:
    """Along the first dimension, into memory that TensorFlow need not copy to read."""
    dtype, inner = arrays[0].dtype, arrays[0].shape[1:]
    if dtype.hasobject:  # strings: TensorFlow copies each of them anyway
        return np.concatenate(arrays)
    shape = (sum(map(len, arrays)), *inner)
    size = math.prod(shape) * dtype.itemsize
    # numpy has no way to ask for an alignment: ask for more, and begin where it fits.
    room = np.empty(size + TENSOR_ALIGNMENT, np.uint8)
    start = -room.ctypes.data % TENSOR_ALIGNMENT
    joined: Array = room[start : start + size].view(dtype).reshape(shape)
    return np.concatenate(arrays, out=joined)


def _pad(arrays: list[Array]) -> list[Array]:
    """The arrays, each beyond its first dimension padded at the end with its own first element."""
    inner = [max(sizes) for sizes in zip(*(array.shape[1:] for array in arrays), strict=True)]
    padded = []
    for array in arrays:
        if array.shape[1:] != tuple(inner):
            if not array.size:
                raise InvalidArgument("Got empty tensor in batch of non-empty tensors.")
            wider = np.full((len(array), *inner), array.flat[0], array.dtype)
            wider[tuple(slice(size) for size in array.shape)] = array
            array = wider
        padded.append(array)
    return padded


def _slices(sizes: Sequence[int]) -> Iterator[slice]:
    start = 0
    for size in sizes:
        yield slice(start, start + size)
        start += size


def _count(run: Run) -> int:
    return len(next(iter(run.feeds.values())))


def _batch_size(rows: int, options: BatchingOptions) -> int:
    """With filling: the smallest allowed size that holds `rows`."""
    return next((size for size in options.allowed_sizes if size >= rows), rows)

"""Joins runs that wait at the same time into one, with TensorFlow Serving's parameters and errors.

A run joins the open batch of its kind: the same version, inputs and outputs, and the same sizes
beyond the first dimension. (TensorFlow Serving joins unequal sizes too, and then fails the whole
batch; with `pad_variable_length_inputs` they are padded, here as there.) A batch runs as soon as
a thread is free and it is full or has waited for `timeout_s`; a queue is all the batches of one
kind that wait. Everything but the joined run itself happens on the event loop.
"""
import asyncio
import math
import os
import time
from collections import deque
from collections.abc import Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from service.modelserver.errors import (
    FailedPrecondition,
    InvalidArgument,
    ServingError,
    Unavailable,
)
from service.modelserver.servable import Run, Servable
from service.protos.serving_pb2 import BatchingParameters
from service.tensors import Array

Tensors = dict[str, Array]

TENSOR_ALIGNMENT = 64  # bytes; TensorFlow reads an array where it lies if it begins at a multiple


class BatchingOptions(NamedTuple):
    """BatchingParameters with TensorFlow Serving's defaults."""

    max_batch_size: int = 1000
    timeout_s: float = 0.0
    max_enqueued_batches: int = 10
    threads: int = os.cpu_count() or 1
    allowed_sizes: tuple[int, ...] = ()  # a batch is filled up to the next of these
    pad_variable_lengths: bool = False


@dataclass(eq=False)
class _Task:
    run: Run
    rows: int
    outcome: asyncio.Future[Tensors]


@dataclass(eq=False)
class _Batch:
    """Tasks of one kind that will run as one, at most max_batch_size rows."""

    servable: Servable
    due: float  # on the monotonic clock: run then, full or not
    tasks: list[_Task] = field(default_factory=list)
    rows: int = 0
    closed: bool = False  # another batch of its kind has been opened since

    def add(self, task: _Task) -> None:
        self.tasks.append(task)
        self.rows += task.rows


def batching_options(parameters: BatchingParameters) -> BatchingOptions:
    """Raises InvalidArgument for parameters that contradict each other."""
    given = {name: getattr(parameters, name).value for name in (
        "max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads")
        if parameters.HasField(name)}
    sizes = tuple(parameters.allowed_batch_sizes)
    defaults = BatchingOptions()
    options = BatchingOptions(
        given.get("max_batch_size", defaults.max_batch_size),
        given.get("batch_timeout_micros", 0) / 1e6,
        given.get("max_enqueued_batches", defaults.max_enqueued_batches),
        given.get("num_batch_threads", defaults.threads), sizes,
        parameters.pad_variable_length_inputs)
    for name in ("max_batch_size", "max_enqueued_batches", "threads"):
        if getattr(options, name) < 1:
            raise InvalidArgument(f"{name} must be positive; was {getattr(options, name)}")
    if sizes and (list(sizes) != sorted(set(sizes)) or sizes[0] < 1):
        raise InvalidArgument(f"allowed_batch_sizes entries must be in increasing order: {sizes}")
    if sizes and sizes[-1] != options.max_batch_size:
        raise InvalidArgument("Last entry in allowed_batch_sizes must match max_batch_size; last "
                              f"entry was {sizes[-1]}; expected {options.max_batch_size}")
    return options


class BatchingRunner:
    """A Runner that joins. One for all models: they share its threads, not their queues."""

    def __init__(self, options: BatchingOptions) -> None:
        self._options = options
        self._at_once = not (options.timeout_s or options.allowed_sizes)
        self._pool = ThreadPoolExecutor(options.threads, "batch")
        self._free = options.threads
        self._queues: dict[Hashable, deque[_Batch]] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, servable: Servable, run: Run) -> Tensors:
        """Raises InvalidArgument for inputs that make no batch, Unavailable for a full queue."""
        loop = asyncio.get_running_loop()
        rows = _rows(run, self._options.max_batch_size)
        if rows == 0:  # nothing to join, and TensorFlow Serving never answers it
            return await loop.run_in_executor(self._pool, servable.run, run)
        if self._free and self._at_once:  # then nothing waits that it could join
            return await self._run_alone(servable, run, rows)
        task = _Task(run, rows, loop.create_future())
        self._enqueue(servable, task)
        self._dispatch()
        return await task.outcome

    async def close(self) -> None:
        self._pool.shutdown()

    async def _run_alone(self, servable: Servable, run: Run, rows: int) -> Tensors:
        """At once, without the queue's bookkeeping: a lone caller pays nothing for batching."""
        self._free -= 1
        running = self._pool.submit(_run_alone, servable, run, rows)
        try:
            return await asyncio.wrap_future(running)
        finally:
            if running.done():
                self._finish_alone()
            else:  # the caller hung up; the thread is not free before the run's end
                loop = asyncio.get_running_loop()
                running.add_done_callback(lambda _: loop.call_soon_threadsafe(self._finish_alone))

    def _enqueue(self, servable: Servable, task: _Task) -> None:
        queue = self._queues.setdefault(self._kind(servable, task.run), deque())
        if queue and queue[-1].rows + task.rows <= self._options.max_batch_size:
            queue[-1].add(task)
            return
        if len(queue) >= self._options.max_enqueued_batches:
            raise Unavailable("The batch scheduling queue to which this task was submitted is "
                              f"full; {len(queue)} batches are waiting")
        if queue:
            queue[-1].closed = True
        queue.append(_Batch(servable, time.monotonic() + self._options.timeout_s))
        queue[-1].add(task)

    def _kind(self, servable: Servable, run: Run) -> Hashable:
        padded = self._options.pad_variable_lengths
        forms = tuple((name, array.dtype, array.ndim if padded else array.shape[1:])
                      for name, array in run.feeds.items())
        return servable, forms, run.fetches

    def _dispatch(self) -> None:
        """Hand batches to free threads, the one that waits longest first."""
        while self._free and (kind := self._next_kind()) is not None:
            batch = self._queues[kind].popleft()
            if not self._queues[kind]:
                del self._queues[kind]
            # A caller that hung up, or whose deadline has passed, cancelled its task.
            batch.tasks = [task for task in batch.tasks if not task.outcome.done()]
            if batch.tasks:
                self._start(batch)

    def _next_kind(self) -> Hashable | None:
        """The queue whose first batch may run; where none may yet, look again when one is due."""
        heads = [(queue[0].due, kind) for kind, queue in self._queues.items()]
        ready = [(due, kind) for due, kind in heads if self._is_ready(self._queues[kind][0])]
        if not ready and heads:
            self._look_again(min(due for due, _ in heads))
        return min(ready, key=lambda head: head[0])[1] if ready else None

    def _is_ready(self, batch: _Batch) -> bool:
        full = batch.rows >= self._options.max_batch_size
        return batch.closed or full or batch.due <= time.monotonic()

    def _look_again(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        delay = max(due - time.monotonic(), 0)
        self._timer = asyncio.get_running_loop().call_later(delay, self._dispatch)

    def _start(self, batch: _Batch) -> None:
        self._free -= 1
        runs = [task.run for task in batch.tasks]
        running = asyncio.get_running_loop().run_in_executor(
            self._pool, _run_joined, batch.servable, runs, self._options)
        running.add_done_callback(partial(self._finish, batch))

    def _finish_alone(self) -> None:
        self._free += 1
        self._dispatch()

    def _finish(self, batch: _Batch, running: asyncio.Future[list[Tensors | Exception]]) -> None:
        self._free += 1
        for task, outcome in zip(batch.tasks, running.result(), strict=True):
            if task.outcome.done():  # the caller hung up meanwhile
                continue
            if isinstance(outcome, Exception):
                task.outcome.set_exception(outcome)
            else:
                task.outcome.set_result(outcome)
        self._dispatch()


def _rows(run: Run, limit: int) -> int:
    """The first dimension, which all inputs share."""
    if any(array.ndim == 0 for array in run.feeds.values()):
        raise InvalidArgument("Batching session Run() input tensors must have at least one "
                              "dimension")
    sizes = {len(array) for array in run.feeds.values()} or {0}
    if len(sizes) > 1:
        raise InvalidArgument("Batching session Run() input tensors must have equal 0th-dimension "
                              f"size; got {sorted(sizes)}")
    rows = sizes.pop()
    if rows > limit:
        raise InvalidArgument(f"Task size {rows} is larger than maximum input batch size {limit}")
    return rows


def _run_alone(servable: Servable, run: Run, rows: int) -> Tensors:
    outputs = servable.run(run)
    _check_rows(outputs, rows)
    return outputs


def _run_joined(servable: Servable, runs: list[Run],
                options: BatchingOptions) -> list[Tensors | Exception]:
    """Each run's tensors, or what it failed with; one bad run fails only itself."""
    try:
        outputs = servable.run(_join(runs, options))
        return list(_split(outputs, [_count(run) for run in runs], options))
    except (ServingError, tf.errors.OpError) as error:
        if len(runs) == 1:
            return [error]
        return [outcome for run in runs for outcome in _run_joined(servable, [run], options)]
    except Exception as error:  # whatever it is, the callers must not wait for ever
        return [error] * len(runs)


def _join(runs: list[Run], options: BatchingOptions) -> Run:
    if len(runs) == 1 and not options.allowed_sizes:
        return runs[0]
    filling = _batch_size(sum(map(_count, runs)), options) - sum(map(_count, runs))
    feeds = {}
    for name in runs[0].feeds:
        arrays = [run.feeds[name] for run in runs]
        if options.pad_variable_lengths:
            arrays = _pad(arrays)
        # Rows that are known to be valid inputs, as TensorFlow Serving fills up.
        feeds[name] = _concatenate([*arrays, *[arrays[-1][:1]] * filling])
    return Run(feeds, runs[0].fetches)


def _concatenate(arrays: list[Array]) -> Array:
    """Along the first dimension, into memory that TensorFlow need not copy to read."""
    dtype, inner = arrays[0].dtype, arrays[0].shape[1:]
    if dtype.hasobject:
        return np.concatenate(arrays)
    shape = (sum(map(len, arrays)), *inner)
    size = math.prod(shape) * dtype.itemsize
    room = np.empty(size + TENSOR_ALIGNMENT, np.uint8)
    start = -room.ctypes.data % TENSOR_ALIGNMENT
    joined: Array = room[start:start + size].view(dtype).reshape(shape)
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


def _split(outputs: Tensors, counts: list[int], options: BatchingOptions) -> Iterable[Tensors]:
    _check_rows(outputs, _batch_size(sum(counts), options))
    start = 0
    for count in counts:
        yield {name: array[start:start + count] for name, array in outputs.items()}
        start += count


def _check_rows(outputs: Tensors, expected: int) -> None:
    for name, array in outputs.items():
        if array.ndim == 0:
            raise FailedPrecondition(f"Batched output tensor {name} has 0 dimensions")
        if len(array) != expected:
            raise FailedPrecondition(
                f"Batched output tensor {name}'s 0th dimension ({len(array)}) does not equal the "
                f"sum of the 0th dimension sizes of the input tensors ({expected})")


def _count(run: Run) -> int:
    return len(next(iter(run.feeds.values())))


def _batch_size(rows: int, options: BatchingOptions) -> int:
    """With filling: the smallest allowed size that holds `rows`."""
    return next((size for size in options.allowed_sizes if size >= rows), rows)

"""Joins runs that wait at the same time into one, with TensorFlow Serving's parameters and errors.

A run joins the open batch of its kind: the same version, inputs and outputs, and the same sizes
beyond the first dimension. (TensorFlow Serving joins unequal sizes too, and then fails the whole
batch; with `pad_variable_length_inputs` they are padded, here as there.) A batch runs as soon as
a thread is free and it is full, has waited for `timeout_s`, or had the next one opened behind it;
a queue is all the batches of one kind that wait. With large-batch splitting a run fills the open
batch and opens as many more as it needs. The event loop does everything but the work on tensors,
so that queues and counts need no lock.

Not TensorFlow's own batching op (tf.nondifferentiable_batch_function; it was tried): there a run
that the graph refuses fails those it was joined with, two runs of unequal sizes fail each other,
and each caller that waits holds a thread.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import tensorflow as tf

from service.modelserver.batching_options import BatchingOptions
from service.modelserver.errors import InvalidArgument, ServingError, Unavailable
from service.modelserver.joining import check_rows, glue, join, rows_of, share_out, split
from service.modelserver.runner import Runner
from service.modelserver.servable import Run, Servable, Tensors

RecordBatch = Callable[[Sequence[float]], None]  # the seconds that each run in it has waited


@dataclass(eq=False)
class _Task:
    run: Run
    rows: int
    outcome: asyncio.Future[Tensors]
    since: float  # on the monotonic clock
    deadline: float | None  # there too; None: its caller waits for ever


@dataclass(eq=False)
class _Batch:
    """Tasks of one kind that will run as one, at most options.batch_limit rows."""

    servable: Servable
    options: BatchingOptions
    opened: float  # on the monotonic clock
    tasks: list[_Task] = field(default_factory=list)
    rows: int = 0
    closed: bool = False  # another batch of its kind has been opened since

    def add(self, task: _Task) -> None:
        self.tasks.append(task)
        self.rows += task.rows

    @property
    def room(self) -> int:
        return self.options.batch_limit - self.rows

    @property
    def due(self) -> float:
        """When to run, full or not."""
        return self.opened + self.options.timeout_s

    def is_ready(self) -> bool:
        return self.closed or self.room <= 0 or self.due <= time.monotonic()

    def wanted(self) -> list[_Task]:
        """Without those whose caller hung up, or whose deadline has passed: they are cancelled."""
        return [task for task in self.tasks if not task.outcome.done()]


class BatchingRunner:
    """A Runner that joins. One for all models: they share its threads, not their queues.

    `unbatched` runs what is asked of a version that is not batched; `record` is told of every
    batched run that begins.
    """

    def __init__(self, threads: int, unbatched: Runner, record: RecordBatch | None = None) -> None:
        self._pool = ThreadPoolExecutor(threads, "batch")
        self._free = threads
        self._unbatched = unbatched
        self._record: RecordBatch = record or _ignore
        self._queues: dict[Hashable, deque[_Batch]] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, servable: Servable, run: Run, deadline: float | None = None) -> Tensors:
        """Raises InvalidArgument for inputs that form no batch, Unavailable for a full queue."""
        options = servable.batching
        if options is None:
            return await self._unbatched.run(servable, run, deadline)
        rows = rows_of(run)
        if rows > options.max_batch_size:
            raise InvalidArgument(
                f"Task size {rows} is larger than maximum input batch size {options.max_batch_size}"
            )
        if rows == 0:  # nothing to join, and TensorFlow Serving never answers it
            # Not counted in `_free`: it has no rows to compute; a batch behind it waits.
            return await asyncio.get_running_loop().run_in_executor(self._pool, servable.run, run)
        if self._free and options.run_at_once and rows <= options.batch_limit:
            return await self._run_alone(
                servable, run, rows, deadline
            )  # nothing waits that it could join
        tasks = self._enqueue(servable, options, run, rows, deadline)
        self._dispatch()
        return await _outcome(tasks)

    async def close(self) -> None:
        self._pool.shutdown()
        await self._unbatched.close()

    async def _run_alone(
        self, servable: Servable, run: Run, rows: int, deadline: float | None
    ) -> Tensors:
        """At once, without the queue's bookkeeping: a lone caller pays nothing for batching."""
        self._free -= 1
        self._record((0.0,))
        # Not run_in_executor, whose future is done as soon as the caller hangs up: whether the
        # thread is free is known to the pool's own future only.
        running = self._pool.submit(_run_checked, servable, run, rows, deadline)
        try:
            return await asyncio.wrap_future(running)
        finally:
            if running.done():
                self._finish_alone()
            else:  # the caller hung up; the thread is not free before the run's end
                loop = asyncio.get_running_loop()
                running.add_done_callback(lambda _: loop.call_soon_threadsafe(self._finish_alone))

    def _enqueue(
        self,
        servable: Servable,
        options: BatchingOptions,
        run: Run,
        rows: int,
        deadline: float | None,
    ) -> list[_Task]:
        """The tasks that the run has become: one, unless it was split."""
        now, loop = time.monotonic(), asyncio.get_running_loop()
        kind = _kind(servable, options, run, rows)
        queue = self._queues.get(kind) or deque()
        sizes = _sizes(rows, queue[-1].room if queue else 0, options)
        _check_capacity(queue, sizes, options)
        tasks = [
            _Task(part, size, loop.create_future(), now, deadline)
            for part, size in zip(split(run, sizes), sizes, strict=True)
        ]
        for task in tasks:
            if not queue or task.rows > queue[-1].room:
                if queue:
                    queue[-1].closed = True
                queue.append(_Batch(servable, options, now))
            queue[-1].add(task)
        # Only now: a run that was refused above must not leave an empty queue behind.
        self._queues[kind] = queue
        return tasks

    def _dispatch(self) -> None:
        """Hand batches to free threads, the one that was opened first before the others."""
        while self._free and (kind := self._next_kind()) is not None:
            batch = self._queues[kind].popleft()
            if not self._queues[kind]:  # kinds hold their servable, which is to be freed some day
                del self._queues[kind]
            batch.tasks = batch.wanted()  # `_finish` answers these
            if batch.tasks:
                self._start(batch)

    def _next_kind(self) -> Hashable | None:
        """The queue whose first batch may run; where none may yet, look again when one is due."""
        heads = [(queue[0], kind) for kind, queue in self._queues.items()]
        ready = [(batch.opened, kind) for batch, kind in heads if batch.is_ready()]
        if not ready and heads:
            self._look_again(min(batch.due for batch, _ in heads))
        return min(ready, key=lambda head: head[0])[1] if ready else None

    def _look_again(self, due: float) -> None:
        if self._timer is not None:  # one timer for all kinds: what was due later is seen then
            self._timer.cancel()
        delay = max(due - time.monotonic(), 0)
        self._timer = asyncio.get_running_loop().call_later(delay, self._dispatch)

    def _start(self, batch: _Batch) -> None:
        self._free -= 1
        now = time.monotonic()
        self._record([now - task.since for task in batch.tasks])
        running = asyncio.get_running_loop().run_in_executor(
            self._pool,
            _run_joined,
            batch.servable,
            batch.tasks,
            batch.options,
        )
        running.add_done_callback(partial(self._finish, batch))

    def _finish_alone(self) -> None:
        self._free += 1
        self._dispatch()

    def _finish(self, batch: _Batch, running: asyncio.Future[list[Tensors | Exception]]) -> None:
        self._free += 1
        for task, outcome in zip(batch.tasks, running.result(), strict=True):
            if task.outcome.done():  # the caller hung up meanwhile; a future is set only once
                continue
            if isinstance(outcome, Exception):
                task.outcome.set_exception(outcome)
            else:
                task.outcome.set_result(outcome)
        self._dispatch()


def _kind(servable: Servable, options: BatchingOptions, run: Run, rows: int) -> Hashable:
    """What runs must have in common to be joined.

    The parts of a run that has to be split are not padded: one could come out wider than another,
    and the answer would not fit together again.
    """
    padded = options.pad_variable_lengths and rows <= options.batch_limit
    forms = tuple(
        (name, array.dtype, array.ndim if padded else array.shape[1:])
        for name, array in run.feeds.items()
    )
    return servable, forms, run.fetches


def _sizes(rows: int, room: int, options: BatchingOptions) -> list[int]:
    """The rows of the tasks that a run becomes, the first of which takes the open batch's room."""
    whole = rows <= options.batch_limit if options.pad_variable_lengths else rows <= room
    if options.split_at is None or whole:
        return [rows]
    full, rest = divmod(rows - room, options.split_at)
    return [size for size in (room, *[options.split_at] * full, rest) if size]


def _check_capacity(
    queue: Sequence[_Batch], sizes: Sequence[int], options: BatchingOptions
) -> None:
    """Raises Unavailable where tasks of these sizes are too many for the queue."""
    room = queue[-1].room if queue else 0
    opened = len(sizes[1:] if sizes[0] <= room else sizes)
    if opened == 0 or len(queue) + opened <= options.max_enqueued_batches:
        return
    waiting = sum(bool(batch.wanted()) for batch in queue)  # looked for only where it decides
    if waiting + opened <= options.max_enqueued_batches:
        return
    full = "The batch scheduling queue to which this task was submitted is full; "
    if options.split_at is None:
        raise Unavailable(
            f"{full}currently {waiting} batches enqueued and max_enqueued_batches "
            f"is {options.max_enqueued_batches}"
        )
    capacity = (options.max_enqueued_batches - waiting) * options.split_at + room
    raise Unavailable(
        f"{full}task size is {sum(sizes)} but scheduling capacity is only {capacity} "
        f"(num_enqueued_batches={waiting}, "
        f"max_enqueued_batches={options.max_enqueued_batches}, "
        f"max_execution_batch_size={options.split_at})"
    )


async def _outcome(tasks: Sequence[_Task]) -> Tensors:
    if len(tasks) == 1:
        return await tasks[0].outcome
    try:
        outcomes = await asyncio.gather(*(task.outcome for task in tasks))
        return await asyncio.to_thread(glue, outcomes)
    finally:
        for task in tasks:  # one failed, or the caller hung up: the others need not run
            task.outcome.cancel()


def _run_checked(servable: Servable, run: Run, rows: int, deadline: float | None) -> Tensors:
    outputs = servable.run(run, deadline)
    check_rows(outputs, rows)
    return outputs


def _run_joined(
    servable: Servable, tasks: Sequence[_Task], options: BatchingOptions
) -> list[Tensors | Exception]:
    """Each task's tensors, or what it failed with; one bad run fails only itself."""
    runs = [task.run for task in tasks]
    outcomes: list[Tensors | Exception]
    try:
        if all(task.outcome.done() for task in tasks):
            raise Unavailable("Nobody waits for this run")
        joined = join(runs, options)
        outcomes = [*share_out(servable.run(joined, _last(tasks)), runs, options)]
    except (ServingError, tf.errors.OpError) as error:
        if len(runs) == 1:
            return [error]
        # Which run it was, TensorFlow does not say: each is tried alone.
        outcomes = [outcome for task in tasks for outcome in _run_joined(servable, [task], options)]
    except Exception as error:  # whatever it is, the callers must not wait for ever
        outcomes = [error] * len(runs)
    return outcomes


def _last(tasks: Sequence[_Task]) -> float | None:
    """The latest deadline; None where one of the callers waits for ever."""
    deadlines = [task.deadline for task in tasks if task.deadline is not None]
    return max(deadlines) if len(deadlines) == len(tasks) else None


def _ignore(waits: Sequence[float]) -> None:
    """The record of a runner that keeps no figures."""

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
from functools import partial

import tensorflow as tf

from service.modelserver.batches import Batch, Task, check_capacity, kind_of, sizes_of
from service.modelserver.batching_options import BatchingOptions
from service.modelserver.errors import InvalidArgument, ServingError, Unavailable
from service.modelserver.joining import check_rows, glue, join, rows_of, share_out, split
from service.modelserver.runner import Runner
from service.modelserver.servable import Run, Servable, Tensors

RecordBatch = Callable[[Sequence[float]], None]  # the seconds that each run in it has waited


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
        self._queues: dict[Hashable, deque[Batch]] = {}
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
    ) -> list[Task]:
        """The tasks that the run has become: one, unless it was split."""
        now, loop = time.monotonic(), asyncio.get_running_loop()
        kind = kind_of(servable, options, run, rows)
        queue = self._queues.get(kind) or deque()
        sizes = sizes_of(rows, queue[-1].room if queue else 0, options)
        check_capacity(queue, sizes, options)
        tasks = [
            Task(part, size, loop.create_future(), now, deadline)
            for part, size in zip(split(run, sizes), sizes, strict=True)
        ]
        for task in tasks:
            if not queue or task.rows > queue[-1].room:
                if queue:
                    queue[-1].closed = True
                queue.append(Batch(servable, options, now))
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

    def _start(self, batch: Batch) -> None:
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

    def _finish(self, batch: Batch, running: asyncio.Future[list[Tensors | Exception]]) -> None:
        self._free += 1
        for task, outcome in zip(batch.tasks, running.result(), strict=True):
            if task.outcome.done():  # the caller hung up meanwhile; a future is set only once
                continue
            if isinstance(outcome, Exception):
                task.outcome.set_exception(outcome)
            else:
                task.outcome.set_result(outcome)
        self._dispatch()


async def _outcome(tasks: Sequence[Task]) -> Tensors:
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
    servable: Servable, tasks: Sequence[Task], options: BatchingOptions
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


def _last(tasks: Sequence[Task]) -> float | None:
    """The latest deadline; None where one of the callers waits for ever."""
    deadlines = [task.deadline for task in tasks if task.deadline is not None]
    return max(deadlines) if len(deadlines) == len(tasks) else None


def _ignore(waits: Sequence[float]) -> None:
    """The record of a runner that keeps no figures."""

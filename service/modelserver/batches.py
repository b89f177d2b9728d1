"""What waits: runs as tasks, joined in batches of one kind; and what joins which."""

import asyncio
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from service.modelserver.batching_options import BatchingOptions
from service.modelserver.errors import Unavailable
from service.modelserver.servable import Run, Servable, Tensors


@dataclass(eq=False)
class Task:
    """A run, or the part of one that fits into a batch, and what comes of it."""

    run: Run
    rows: int
    outcome: asyncio.Future[Tensors]
    since: float  # on the monotonic clock
    deadline: float | None  # there too; None: its caller waits for ever


@dataclass(eq=False)
class Batch:
    """Tasks of one kind that will run as one, at most options.batch_limit rows."""

    servable: Servable
    options: BatchingOptions
    opened: float  # on the monotonic clock
    tasks: list[Task] = field(default_factory=list)
    rows: int = 0
    closed: bool = False  # another batch of its kind has been opened since

    def add(self, task: Task) -> None:
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

    def wanted(self) -> list[Task]:
        """Without those whose caller hung up, or whose deadline has passed: they are cancelled."""
        return [task for task in self.tasks if not task.outcome.done()]


def kind_of(servable: Servable, options: BatchingOptions, run: Run, rows: int) -> Hashable:
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


def sizes_of(rows: int, room: int, options: BatchingOptions) -> list[int]:
    """The rows of the tasks that a run becomes, the first of which takes the open batch's room."""
    whole = rows <= options.batch_limit if options.pad_variable_lengths else rows <= room
    if options.split_at is None or whole:
        return [rows]
    full, rest = divmod(rows - room, options.split_at)
    return [size for size in (room, *[options.split_at] * full, rest) if size]


def check_capacity(queue: Sequence[Batch], sizes: Sequence[int], options: BatchingOptions) -> None:
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

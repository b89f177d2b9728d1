"""Requests that end at their deadline, with one timer for all of them.

Nearly every request is answered in time, and asyncio.timeout sets a timer for each and takes it
back: 12 us, a tenth of what a small prediction costs here. One timer stands at the earliest
deadline that has been seen; when it comes, whoever is late by then is cancelled, and it is set to
the earliest of the others.
"""

import asyncio
import math
import time

from service.gateway.caller import Caller
from service.gateway.errors import DeadlineExceeded

LEAST_S = 0.005  # between two looks at all that are open


class Deadlines:
    """Those of one event loop."""

    def __init__(self) -> None:
        self._open: set[Within] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._at = math.inf  # when the timer comes, on the monotonic clock

    def within(self, caller: Caller) -> "Within":
        """To be entered: the block raises DeadlineExceeded when the caller's time is over."""
        return Within(self, caller)

    def watch(self, block: "Within") -> None:
        self._open.add(block)
        self.look_by(block.caller.deadline)

    def look_by(self, deadline: float) -> None:
        """Of a block that is watched, whose deadline may have come nearer."""
        if deadline < self._at:
            self._set_timer(deadline, time.monotonic())

    def forget(self, block: "Within") -> None:
        self._open.discard(block)

    def _set_timer(self, at: float, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._at = at
        self._timer = asyncio.get_running_loop().call_later(max(at - now, 0.0), self._look)

    def _look(self) -> None:
        self._timer, self._at = None, math.inf
        now = time.monotonic()
        for block in [each for each in self._open if each.caller.deadline <= now]:
            self._open.discard(block)
            block.end()
        if self._open:
            earliest = min(block.caller.deadline for block in self._open)
            self._set_timer(max(earliest, now + LEAST_S), now)


class Within:
    """A block of one task, which is cancelled within it when its caller's time is over."""

    __slots__ = ("_cancelling", "_deadlines", "_late", "_task", "caller")

    def __init__(self, deadlines: Deadlines, caller: Caller) -> None:
        self._deadlines, self.caller = deadlines, caller
        self._late = False

    def __enter__(self) -> "Within":
        task = asyncio.current_task()
        assert task is not None, "requests are worked on in tasks"
        self._task, self._cancelling = task, task.cancelling()
        self._deadlines.watch(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._late:
            self._deadlines.forget(self)
        elif self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            caller = self.caller
            raise DeadlineExceeded(
                f"No answer within {caller.time_s:.3g} s, the time that the "
                "request had; the model server has too much to do, or does not answer"
            ) from None

    def shorten(self, deadline: float) -> None:
        """The caller has no longer than until `deadline`, on the monotonic clock."""
        if deadline < self.caller.deadline:
            self.caller.deadline = deadline
            self._deadlines.look_by(deadline)

    def end(self) -> None:
        """Once: a block that two ask to end has one cancellation to take back."""
        if not self._late:
            self._late = True
            self._task.cancel()

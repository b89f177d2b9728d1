"""Whether the gateway itself has stood still: stopped, out of its share of the CPU, or held up by
work of its own.

What the model servers answer meanwhile lies in the sockets, and is read a moment after the event
loop goes on. Until then they seem to have taken all that time, and are not to be judged by it.
"""

import asyncio
import math
import time

LOOK_EVERY_S = 0.1
LATE_S = 0.25  # of a look: nothing that belongs on the loop holds it up for so long
# In which what came meanwhile is read. A loop that reads for longer, without coming to its timers,
# is known by the look that is overdue: this is to be no less than LOOK_EVERY_S + LATE_S.
READ_S = 0.5


class Standstill:
    """The last one of an event loop. Times are on the monotonic clock, seconds."""

    def __init__(self) -> None:
        self._ended = 0.0  # 0: there was none
        self._next_look = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """The loop that runs, from now on."""
        self._look()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def ended(self, now: float) -> float:
        """When it did. Before the loop comes to its timers, requests may ask: where the look is
        overdue, it has only just."""
        return now if now - self._next_look > LATE_S else self._ended

    def spoils(self, began: float, now: float) -> bool:
        """Whether the end of a call, which is heard of now, may have been there for long: the time
        since it `began` says nothing."""
        ended = self.ended(now)
        return began < ended and now - ended < READ_S

    def _look(self) -> None:
        now = time.monotonic()
        self._ended, self._next_look = self.ended(now), now + LOOK_EVERY_S
        self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look)

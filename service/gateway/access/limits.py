"""How much a caller may ask: rates with bursts, and a quota a day, each a number in a book.

A rate is kept as the time at which what was spent will have come back (GCRA, ITU-T I.371): one
number that needs no clock to run. What costs more than the whole burst may be spent when nothing
else is, and is paid back before the next.
"""

import math
import time
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

REQUESTS, ROWS, BYTES, DAY = "requests", "rows", "bytes", "day"
DAY_S = 86_400
_DUST_S = 1e-6  # of rounding: to that a double tells the time of day, which is Redis' clock


@dataclass(frozen=True)
class Rate:
    """So much a second, and at most `burst` at once.

    `used` is the number that the book has for it, 0 for none; times are on the monotonic clock,
    which all processes of a machine share."""

    kind: str
    per_s: float
    burst: float

    def spend(self, used: float, now: float, cost: float) -> tuple[float, float, float]:
        """How long until so much may be spent, 0 for now; the number after it is spent; and when
        that may be forgotten."""
        start, burst = (used if used > now else now), self.burst
        wait_s = start - now - (burst - cost) / self.per_s if cost < burst else start - now
        back_at = start + cost / self.per_s
        return (wait_s if wait_s > _DUST_S else 0.0), back_at, back_at

    def left(self, used: float, now: float) -> tuple[int, int]:
        """How much may be spent now, and in how many seconds all of it may be."""
        back_in_s = max(used - now - _DUST_S, 0.0)
        left = int(self.burst - back_in_s * self.per_s)
        return left if left > 0 else 0, math.ceil(back_in_s)

    @cached_property
    def quota(self) -> tuple[int, int]:
        """So much in so many seconds."""
        return int(self.burst), math.ceil(self.burst / self.per_s)


@dataclass(frozen=True)
class Quota:
    """So many requests from one midnight to the next, UTC; asked as a `Rate` is."""

    most: int
    kind: str = DAY

    def spend(self, used: float, now: float, cost: float) -> tuple[float, float, float]:
        left_s, used = _until_midnight_s(), used + cost
        return (0.0 if used <= self.most else left_s), used, now + left_s

    def left(self, used: float, now: float) -> tuple[int, int]:
        del now
        return max(self.most - int(used), 0), math.ceil(_until_midnight_s())

    @cached_property
    def quota(self) -> tuple[int, int]:
        return self.most, DAY_S


Limit = Rate | Quota


@dataclass(frozen=True)
class Limits:
    """What one caller is held to. `places` are requests at the same time in one worker, None for
    any number; an empty tuple for no other limit."""

    rates: tuple[Limit, ...] = ()
    places: int | None = None


NO_LIMITS = Limits()


class Spending(NamedTuple):
    """What is to be spent, all of it or nothing: `name` says whose."""

    name: str
    limit: Limit
    cost: float


class Outcome(NamedTuple):
    """`refused` is the first limit that does not allow it, after `wait_s` it may; `used` are the
    numbers of the book for each spending, as they are now."""

    refused: Limit | None
    wait_s: float
    used: list[float]
    now: float


class Store(Protocol):
    """Where what has been spent is kept. `problem` says why it is kept elsewhere for now.

    `share_ahead` of a burst is what an account of one worker may spend before it is asked for. 0 in
    a store that can be away: it has to be asked for each request, for what holds then to hold at
    once."""

    problem: str
    share_ahead: float

    def look(self) -> None:
        """See, in an event loop, whether there is one: also while nobody asks."""

    async def spend(self, spendings: list[Spending]) -> Outcome:
        """All of them, or none."""

    async def close(self) -> None:
        """At the end of the process."""


def _until_midnight_s() -> float:
    return DAY_S - time.time() % DAY_S

"""How much has changed, over all requests: counts with confidence intervals, and the time."""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from service.captures import Captured
from service.replay.changes import Change, Kind, Reply

Z = 1.96  # of the normal distribution, for intervals that hold 95 times of 100
WORST = 8  # requests that are kept of each kind


class Interval(NamedTuple):
    """An estimate, and between what the truth lies 95 times of 100."""

    estimate: float
    low: float
    high: float


class Case(NamedTuple):
    """One request that is answered otherwise now."""

    captured: Captured
    before: Reply
    after: Reply
    changes: Sequence[Change]


@dataclass
class Summary:
    """Requests are counted, not rows: those of one request are not independent of each other.
    `left` were not compared, and why."""

    requests: int = 0
    changed: int = 0
    by_kind: dict[Kind, int] = field(default_factory=dict)
    left: int = 0
    why_left: str = ""
    _before_s: list[float] = field(default_factory=list)
    _after_s: list[float] = field(default_factory=list)
    _worst: dict[Kind, list[tuple[float, int, Case]]] = field(default_factory=dict)

    def add(self, case: Case) -> None:
        """Under every kind of its changes; whether any or not."""
        self.requests += 1
        if not (case.before.error or case.after.error):
            self._before_s.append(case.before.seconds)
            self._after_s.append(case.after.seconds)
        largest: dict[Kind, float] = {}
        for change in case.changes:
            largest[change.kind] = max(change.size, largest.get(change.kind, 0.0))
        self.changed += bool(largest)
        for kind, size in largest.items():
            self.by_kind[kind] = self.by_kind.get(kind, 0) + 1
            kept = self._worst.setdefault(kind, [])
            entry = (size, -self.requests, case)
            if len(kept) < WORST:
                heapq.heappush(kept, entry)
            else:
                heapq.heappushpop(kept, entry)

    def share(self, kind: Kind | None = None) -> Interval:
        """Of the requests, those with a change of a kind, or of any."""
        return wilson(self.changed if kind is None else self.by_kind.get(kind, 0), self.requests)

    def worst(self, kind: Kind) -> list[Case]:
        """The first of the largest changes of a kind, the largest first."""
        return [case for _, _, case in sorted(self._worst.get(kind, ()), reverse=True)]

    def milliseconds(self, percent: float) -> tuple[float, float]:
        """A percentile of the time to an answer, before and after; NaN where none was answered."""
        before, after = (
            float(np.percentile(each, percent)) * 1e3 if each else math.nan
            for each in (self._before_s, self._after_s)
        )
        return before, after

    def slowdown(self) -> Interval:
        """The median over all requests of how many times as long the answer took."""
        pairs = zip(self._before_s, self._after_s, strict=True)
        return median([after / before for before, after in pairs])


def wilson(hits: int, trials: int) -> Interval:
    """The share of hits. E. B. Wilson, 1927, "Probable inference, the law of succession, and
    statistical inference": of rare hits, and of none, its bounds are right.

    >>> [round(each, 4) for each in wilson(0, 10_000)]
    [0.0, 0.0, 0.0004]
    """
    if not trials:
        return Interval(math.nan, 0.0, 1.0)
    share, square = hits / trials, Z * Z
    middle = (share + square / (2 * trials)) / (1 + square / trials)
    reach = (
        Z
        / (1 + square / trials)
        * math.sqrt(share * (1 - share) / trials + square / (4 * trials * trials))
    )
    return Interval(share, max(middle - reach, 0.0), min(middle + reach, 1.0))


def median(values: Sequence[float]) -> Interval:
    """The median, between the two values whose ranks bound it whatever the distribution is.

    >>> median([1.0, 2.0, 3.0])
    Interval(estimate=2.0, low=1.0, high=3.0)
    """
    if not values:
        return Interval(math.nan, math.nan, math.nan)
    ordered, size = sorted(values), len(values)
    reach = Z * math.sqrt(size) / 2
    low = max(math.floor(size / 2 - reach), 0)
    high = min(math.ceil(size / 2 + reach), size - 1)
    return Interval(float(np.median(ordered)), ordered[low], ordered[high])

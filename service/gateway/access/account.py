"""What one caller has spent of its limits, and may spend."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from service.gateway.access.limits import (
    BYTES,
    DAY,
    REQUESTS,
    ROWS,
    Limits,
    Quota,
    Rate,
    Spending,
    Store,
)
from service.gateway.errors import RateLimited

# What is over, in words.
_TOO_MANY = {
    REQUESTS: "requests",
    ROWS: "rows",
    BYTES: "bytes of bodies",
}


class Standing(NamedTuple):
    """Of one limit: so much of `quota` in `window_s` is left, and all of it again in `reset_s`."""

    kind: str
    quota: int
    window_s: int
    left: int
    reset_s: int


class FreeAccount:
    """Of a caller without limits."""

    standings: tuple[Standing, ...] = ()
    places: int | None = None
    name = ""

    async def spend(self, costs: Mapping[str, float]) -> None:
        del costs


class Account:
    """Of the caller that `name` says: its key's, or an address's. `standings` are as of the last
    request."""

    def __init__(self, name: str, limits: Limits, store: Store) -> None:
        self.name, self.places = name, limits.places
        self.standings: tuple[Standing, ...] = ()
        self._store = store
        self._limits = {each.kind: each for each in limits.rates}

    async def spend(self, costs: Mapping[str, float]) -> None:
        """So much of each kind, all or nothing; a request is one of the day's too. Raises
        RateLimited."""
        spendings = [
            Spending(self.name, limit, cost)
            for kind, cost in costs.items()
            if (limit := self._limits.get(kind)) is not None and cost
        ]
        if REQUESTS in costs and DAY in self._limits:
            spendings.append(Spending(self.name, self._limits[DAY], costs[REQUESTS]))
        if not spendings:
            return
        outcome = await self._store.spend(spendings)
        standings = tuple(
            _standing(each.limit, used, outcome.now)
            for each, used in zip(spendings, outcome.used, strict=True)
        )
        if REQUESTS in costs:
            self.standings = standings
        if outcome.refused is not None:
            wait_s = max(math.ceil(outcome.wait_s), 1)
            raise RateLimited(
                f"{_over(outcome.refused)}; try again in {wait_s} s", wait_s, standings
            )


AnyAccount = Account | FreeAccount
FREE = FreeAccount()


def _standing(limit: Rate | Quota, used: float, now: float) -> Standing:
    return Standing(limit.kind, *limit.quota, *limit.left(used, now))


def _over(limit: Rate | Quota) -> str:
    if isinstance(limit, Quota):
        return f"The {limit.most} requests of this day (UTC) are used up"
    what = _TOO_MANY[limit.kind]
    return f"More than {limit.per_s:g} {what} a second, and {limit.burst:g} at once"

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
    Outcome,
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

    places: int | None = None
    name = ""

    async def spend(self, costs: Mapping[str, float]) -> None:
        del costs


class Account:
    """Of the caller that `name` says: its key's, or an address's."""

    def __init__(self, name: str, limits: Limits, store: Store) -> None:
        self.name, self.places = name, limits.places
        self._store = store
        self._limits = {each.kind: each for each in limits.rates}
        a_day = self._limits.get(DAY)
        self._a_day = None if a_day is None else Spending(name, a_day, 1)

    async def spend(self, costs: Mapping[str, float]) -> None:
        """So much of each kind, all or nothing; a request is one of the day's too. Raises
        RateLimited."""
        spendings = []
        for kind, cost in costs.items():
            limit = self._limits.get(kind)
            if limit is not None and cost:
                spendings.append(Spending(self.name, limit, cost))
        if self._a_day is not None and REQUESTS in costs:
            spendings.append(self._a_day)
        if not spendings:
            return
        outcome = await self._store.spend(spendings)
        if outcome.refused is not None:
            again_s = max(math.ceil(outcome.wait_s), 1)
            message = f"{_over(outcome.refused)}; try again in {again_s} s"
            raise RateLimited(message, again_s, _standings(spendings, outcome))


AnyAccount = Account | FreeAccount
FREE = FreeAccount()


def _standings(spendings: list[Spending], outcome: Outcome) -> tuple[Standing, ...]:
    return tuple(
        Standing(each.limit.kind, *each.limit.quota, *each.limit.left(used, outcome.now))
        for each, used in zip(spendings, outcome.used, strict=True)
    )


def _over(limit: Rate | Quota) -> str:
    if isinstance(limit, Quota):
        return f"The {limit.most} requests of this day (UTC) are used up"
    what = _TOO_MANY[limit.kind]
    return f"More than {limit.per_s:g} {what} a second, and {limit.burst:g} at once"

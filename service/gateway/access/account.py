"""What one caller has spent of its limits, and may spend.

Where the store allows it a worker spends a little ahead of the requests that come, for then most of
them are paid at hand, without the numbers that all workers share. What is at hand counts as spent:
nobody gets more than the limit by it, and whoever changes to another worker finds so much less.
"""

import math
import time
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

# So much of a burst is spent ahead at a time, where that is this many at least: of a small one it
# would be felt.
SHARE_AHEAD = 0.01
LEAST_AHEAD = 2
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
    """Of the caller that `name` says: its key's, or an address's. For one event loop."""

    def __init__(self, name: str, limits: Limits, store: Store) -> None:
        self.name, self.places = name, limits.places
        self._store = store
        self._limits = {each.kind: each for each in limits.rates}
        a_day = self._limits.get(DAY)
        self._a_day = None if a_day is None else Spending(name, a_day, 1)
        self._at_hand = dict.fromkeys(self._limits, 0.0)
        # The day's requests are counted in the store each, so nothing would be saved.
        self._ahead = _ahead_of(limits) if store.may_be_ahead and a_day is None else {}
        self._alone_until = 0.0

    async def spend(self, costs: Mapping[str, float]) -> None:
        """So much of each kind, all or nothing; a request is one of the day's too. Raises
        RateLimited."""
        if self._pay_at_hand(costs):
            return
        spendings = self._spendings(costs)
        if await self._spend_ahead(spendings):
            return
        outcome = await self._store.spend(spendings)
        if outcome.refused is not None:
            again_s = max(math.ceil(outcome.wait_s), 1)
            message = f"{_over(outcome.refused)}; try again in {again_s} s"
            raise RateLimited(message, again_s, _standings(spendings, outcome))

    def _pay_at_hand(self, costs: Mapping[str, float]) -> bool:
        """Whether all of it was at hand, or under no limit, and is paid."""
        if self._a_day is not None and REQUESTS in costs:
            return False
        at_hand = self._at_hand
        for kind, cost in costs.items():
            if at_hand.get(kind, cost) < cost:
                return False
        for kind, cost in costs.items():
            if kind in at_hand:
                at_hand[kind] -= cost
        return True

    def _spendings(self, costs: Mapping[str, float]) -> list[Spending]:
        limits = self._limits
        found = [
            Spending(self.name, limits[kind], cost)
            for kind, cost in costs.items()
            if kind in limits and cost
        ]
        if self._a_day is not None and REQUESTS in costs:
            found.append(self._a_day)
        return found

    async def _spend_ahead(self, spendings: list[Spending]) -> bool:
        """Whether there was enough for them and for some that come after."""
        ahead = self._ahead
        if not any(each.limit.kind in ahead for each in spendings):
            return False
        if time.monotonic() < self._alone_until:
            return False
        more = [each.cost + ahead.get(each.limit.kind, 0.0) for each in spendings]
        outcome = await self._store.spend(
            [each._replace(cost=cost) for each, cost in zip(spendings, more, strict=True)]
        )
        if outcome.refused is not None:
            self._alone_until = outcome.now + outcome.wait_s
            return False
        for each in spendings:
            self._at_hand[each.limit.kind] += ahead.get(each.limit.kind, 0.0)
        return True


AnyAccount = Account | FreeAccount
FREE = FreeAccount()


def _ahead_of(limits: Limits) -> dict[str, float]:
    """How much of each kind is spent ahead."""
    shares = {
        each.kind: each.burst * SHARE_AHEAD for each in limits.rates if isinstance(each, Rate)
    }
    return {kind: share for kind, share in shares.items() if share >= LEAST_AHEAD}


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

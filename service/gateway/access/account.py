"""What one caller has spent of its limits, and may spend.

Where the store allows it a worker spends a little ahead of the requests that come, for then most of
them are paid at hand, without the numbers that all workers share. What is at hand counts as spent,
so nobody gets more by it than the limit brings over time; at once, after a pause, as much more as
the workers have at hand, and whoever changes to another worker finds so much less.
"""

import math
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from service.gateway.access.limits import (
    BYTES,
    DAY,
    REQUESTS,
    ROWS,
    Limit,
    Limits,
    Outcome,
    Quota,
    Rate,
    Spending,
    Store,
)
from service.gateway.errors import RateLimited

# Fewer are not spent ahead: of a small burst it would be felt.
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


def unheard(reason: str) -> None:
    """Where nobody counts what is refused."""
    del reason


class FreeAccount:
    """Of a caller without limits."""

    places: int | None = None
    name = ""

    def pay_request(self, size: int) -> bool:
        del size
        return True

    def pay(self, kind: str, cost: float) -> bool:
        del kind, cost
        return True

    async def spend(self, costs: Mapping[str, float]) -> None:
        del costs


class Account:
    """Of the caller that `name` says: its key's, or an address's. For one event loop. `refused` is
    told of each refusal, by the error's name."""

    def __init__(
        self,
        name: str,
        limits: Limits,
        store: Store,
        refused: Callable[[str], None] = unheard,
    ) -> None:
        self.name, self.places = name, limits.places
        self._store, self._refused = store, refused
        self._limits = {each.kind: each for each in limits.rates}
        self._counts_days = DAY in self._limits
        # Of a kind without a limit there is always enough.
        self._at_hand = dict.fromkeys((REQUESTS, ROWS, BYTES), math.inf)
        self._at_hand.update(dict.fromkeys(self._limits, 0.0))
        # The day's requests are counted in the store each, so nothing would be saved.
        self._ahead = _ahead_of(limits, store.share_ahead) if not self._counts_days else {}
        self._alone_until = 0.0

    def pay_request(self, size: int) -> bool:
        """A request of so many bytes, all of it or nothing; whether it was at hand. Else `spend`
        is to be asked."""
        at_hand = self._at_hand
        if self._counts_days or at_hand[REQUESTS] < 1 or at_hand[BYTES] < size:
            return False
        at_hand[REQUESTS] -= 1
        at_hand[BYTES] -= size
        return True

    def pay(self, kind: str, cost: float) -> bool:
        """The same of one kind, which is not requests: those are the day's too."""
        at_hand = self._at_hand
        if at_hand[kind] < cost:
            return False
        at_hand[kind] -= cost
        return True

    async def spend(self, costs: Mapping[str, float]) -> None:
        """So much of each kind, all or nothing; a request is one of the day's too. Raises
        RateLimited."""
        if self._counts_days and REQUESTS in costs:
            costs = {**costs, DAY: 1}
        at_hand = self._at_hand
        missing = {
            kind: cost - at_hand[kind] for kind, cost in costs.items() if at_hand[kind] < cost
        }
        if missing:
            await self._take(missing)
        for kind, cost in costs.items():
            at_hand[kind] -= cost

    async def _take(self, missing: Mapping[str, float]) -> None:
        """Have so much more at hand, and where the store has it what is spent ahead. Raises
        RateLimited."""
        ahead = {kind: self._ahead.get(kind, 0.0) for kind in missing}
        if any(ahead.values()) and time.monotonic() >= self._alone_until:
            more = {kind: missing[kind] + ahead[kind] for kind in missing}
            outcome = await self._store.spend(self._spendings(more))
            if outcome.refused is None:
                self._have(more)
                return
            self._alone_until = outcome.now + outcome.wait_s
        spendings = self._spendings(missing)
        outcome = await self._store.spend(spendings)
        if outcome.refused is not None:
            self._refused(RateLimited.__name__)
            again_s = max(math.ceil(outcome.wait_s), 1)
            message = f"{_over(outcome.refused)}; try again in {again_s} s"
            raise RateLimited(message, again_s, _standings(spendings, outcome))
        self._have(missing)

    def _spendings(self, costs: Mapping[str, float]) -> list[Spending]:
        return [Spending(self.name, self._limits[kind], cost) for kind, cost in costs.items()]

    def _have(self, spent: Mapping[str, float]) -> None:
        for kind, cost in spent.items():
            self._at_hand[kind] += cost


AnyAccount = Account | FreeAccount
FREE = FreeAccount()


def _ahead_of(limits: Limits, share: float) -> dict[str, float]:
    """How much of each kind is spent ahead, where it is so much of a burst."""
    shares = {each.kind: each.burst * share for each in limits.rates if isinstance(each, Rate)}
    return {kind: ahead for kind, ahead in shares.items() if ahead >= LEAST_AHEAD}


def _standings(spendings: list[Spending], outcome: Outcome) -> tuple[Standing, ...]:
    return tuple(
        Standing(each.limit.kind, *each.limit.quota, *each.limit.left(used, outcome.now))
        for each, used in zip(spendings, outcome.used, strict=True)
    )


def _over(limit: Limit) -> str:
    if isinstance(limit, Quota):
        return f"The {limit.most} requests of this day (UTC) are used up"
    what = _TOO_MANY[limit.kind]
    return f"More than {limit.per_s:g} {what} a second, and {limit.burst:g} at once"

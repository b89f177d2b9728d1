"""How a model's next version comes into service: who answers, who is compared, and what became of
the versions before (rollout_files.py reads and writes it).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sluice.wire.fields import shown

STABLE, CANARY_LABEL = "stable", "canary"
RANDOM, BY_KEY, BY_HEADER = "random", "key", "header:"  # how requests are chosen
_HEADER = re.compile(rf"{BY_HEADER}[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.IGNORECASE)
MOST_EARLIER = 20  # rollouts that are remembered


class Stage(StrEnum):
    """Where a rollout stands.

    >>> Stage("canary")
    <Stage.CANARY: 'canary'>
    """

    REPLAY = "replay"  # live answers; next is asked what was captured, by the command alone
    SHADOW = "shadow"  # live answers; next is asked the same, and its answers are compared
    CANARY = "canary"  # next answers a share of the requests, live the others
    PAUSED = "paused"  # live answers, and next is asked nothing
    PROMOTED = "promoted"  # next answers
    ROLLED_BACK = "rolled_back"  # live answers, and next is not to be loaded


@dataclass(frozen=True)
class Event:
    """When a stage began, seconds since 1970, the canary's share from then on, why, and the user
    whose command it was."""

    at: float
    stage: Stage
    canary_share: float
    why: str
    who: str = ""

    @property
    def when(self) -> str:
        """To the second.

        >>> Event(1.8e9, Stage.SHADOW, 0.0, "by hand").when
        '2027-01-15T08:00:00Z'
        """
        return datetime.fromtimestamp(self.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def __str__(self) -> str:
        """
        >>> print(Event(1.8e9, Stage.CANARY, 0.1, "by hand", "ann"))
        2027-01-15T08:00:00Z  canary 0.1, by hand (ann)
        """
        share = f" {self.canary_share:.3g}" if self.stage is Stage.CANARY else ""
        who = f" ({self.who})" if self.who else ""
        return f"{self.when}  {self.stage.replace('_', ' ')}{share}, {self.why}{who}"


@dataclass(frozen=True)
class Earlier:
    """A rollout that is over: of `next` beside `live`, and what became of it.

    >>> Earlier(1, 2, (Event(1.8e9, Stage.PROMOTED, 0.0, "shown to be good"),)).history[-1].why
    'shown to be good'
    """

    live: int
    next: int
    history: tuple[Event, ...]


@dataclass(frozen=True)
class Rollout:
    """`id` is another one for each rollout. Shares are of the requests that name no version, from 0
    to 1. `by` is RANDOM, BY_KEY, or BY_HEADER and a header's name in lower case. The last of
    `history` is the beginning of the stage that it is in. `earlier` are the model's last
    MOST_EARLIER rollouts before it, the oldest first.

    `live` and `next` are the same where a version is held and nothing else is to come.
    """

    id: str
    live: int
    next: int
    stage: Stage
    shadow_share: float = 1.0
    canary_share: float = 0.0
    by: str = RANDOM
    history: tuple[Event, ...] = ()
    earlier: tuple[Earlier, ...] = ()

    @property
    def answering(self) -> int:
        """The version that answers what names none, but for the canary's share.

        >>> Rollout("a", 1, 2, Stage.CANARY).answering, Rollout("a", 1, 2, Stage.PROMOTED).answering
        (1, 2)
        """
        return self.next if self.stage is Stage.PROMOTED else self.live

    @property
    def canary(self) -> float:
        """The share of requests that `next` answers now."""
        return self.canary_share if self.stage is Stage.CANARY else 0.0

    @property
    def shadow(self) -> float:
        """The share of what `live` answers that `next` is asked too, now."""
        return self.shadow_share if self.stage in (Stage.SHADOW, Stage.CANARY) else 0.0

    @property
    def loaded(self) -> frozenset[int]:
        """The versions that a model server has to hold. A promoted one has the version before it
        beside it, so that the way back takes no time.

        >>> sorted(Rollout("a", 1, 2, Stage.ROLLED_BACK).loaded)
        [1]
        """
        return frozenset({self.live} if self.stage is Stage.ROLLED_BACK else {self.live, self.next})

    @property
    def labels(self) -> Mapping[str, int]:
        """What the labels mean that a rollout moves: they are written nowhere else, so that one
        write changes both.

        >>> Rollout("a", 1, 2, Stage.SHADOW).labels
        {'stable': 1, 'canary': 2}
        """
        if self.stage in (Stage.PROMOTED, Stage.ROLLED_BACK):
            return {STABLE: self.answering}
        return {STABLE: self.live, CANARY_LABEL: self.next}

    def moved(
        self, stage: Stage, why: str, at: float, canary_share: float = 0.0, who: str = ""
    ) -> "Rollout":
        """The same in another stage, from `at` on.

        >>> Rollout("a", 1, 2, Stage.SHADOW).moved(Stage.CANARY, "by hand", 1.8e9, 0.1).canary
        0.1
        """
        event = Event(round(at, 3), stage, canary_share, why, who)
        return replace(self, stage=stage, canary_share=canary_share, history=(*self.history, event))

    @property
    def remembered(self) -> tuple[Earlier, ...]:
        """What the model's next rollout has as its `earlier`. A version that is held is none.

        >>> Rollout("a", 1, 2, Stage.PROMOTED).remembered
        (Earlier(live=1, next=2, history=()),)
        """
        own = () if self.live == self.next else (Earlier(self.live, self.next, self.history),)
        return (*self.earlier, *own)[-MOST_EARLIER:]


def checked_by(found: Any) -> str:
    """How requests are chosen, as it is written. Raises ValueError.

    >>> checked_by("header:X-User")
    'header:x-user'
    """
    if not isinstance(found, str) or not (found in (RANDOM, BY_KEY) or _HEADER.fullmatch(found)):
        raise ValueError(f"by: expected {RANDOM}, {BY_KEY} or {BY_HEADER}NAME, got {shown(found)}")
    return found.lower()

"""The first step of a rollout, where there are captured requests: both versions are asked them, by
the command itself and for nobody. What differs is evidence, of this step alone.
"""

import time
from collections.abc import Iterator
from functools import cached_property
from itertools import chain
from pathlib import Path

from service.captures import Captured, Captures
from service.replay.changes import Change, Kind, Reply, Tolerance, changes
from service.replay.sides import Away, Lost, Place, Side, ask_both
from service.rollout.counting import count_pair
from service.rollout.evidence import (
    REPLAYED,
    Evidence,
    evidence_directory,
    evidence_in,
    write_evidence,
)
from service.rollout.watch import Action, Verdict
from sluice.wire.rollouts import Rollout

TIMEOUT_S = 30.0


def captured_of(captures: Captures, model: str) -> Iterator[Captured]:
    """The requests of a model."""
    return (each for each in captures if each.logged.model.name == model)


class Replaying:
    """Of one rollout; to be closed. Begun anew, it goes on with those that it has not counted: the
    oldest files may be gone meanwhile, others have come, or have grown."""

    def __init__(
        self,
        directory: Path,
        rollout: Rollout,
        captures: Captures,
        address: str,
        api_key: str | None,
    ) -> None:
        self._rollout, self._captures, self._model = rollout, captures, directory.name
        self._path = evidence_directory(directory, rollout.id) / REPLAYED
        self._live, self._next = (
            Side(Place(address, version), api_key, TIMEOUT_S)
            for version in (rollout.live, rollout.next)
        )
        self._is_over, self._away = False, ""

    def close(self) -> None:
        self._live.close()
        self._next.close()

    @cached_property
    def _counted(self) -> Evidence:
        """So far, by whoever had the turn before too: it is read when this one has it. Raises
        OSError where it cannot be read now, or what is there would be written over."""
        try:
            return evidence_in(self._path)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return Evidence(self._rollout.id)

    @cached_property
    def _left(self) -> Iterator[Captured]:
        asked = self._counted.asked
        captured = captured_of(self._captures, self._model)
        return (each for each in captured if each.number > asked.get(each.file.name, 0))

    @property
    def _turn(self) -> int:
        """How many were asked."""
        return self._counted.pairs + self._counted.dropped

    def verdict(self) -> Verdict:
        """Raises OSError. Where neither version has answered anything, the shadow has still to show
        whether the next one is good."""
        pairs, dropped = self._counted.pairs, self._counted.dropped
        neither = f" ({dropped:,} more answered by neither version)" if dropped else ""
        told = f"{pairs:,} captured requests compared{neither}"
        if self._is_over:
            shown = "all within bounds" if pairs else "which shows nothing"
            return Verdict(Action.ADVANCE, f"{told}, {shown}")
        return Verdict(Action.WAIT, f"{told}; {self._away}" if self._away else told)

    def go_on(self, seconds: float) -> None:
        """Ask for about so long, and write down what was counted. Raises OSError."""
        until = time.monotonic() + seconds
        is_over, self._away = self._is_over, ""
        while not (is_over or self._away) and time.monotonic() < until:
            is_over = not self._ask()
        write_evidence(self._path, self._counted)
        self._is_over = is_over  # no sooner: what follows is decided by what is written
        if self._away:
            time.sleep(max(0.0, until - time.monotonic()))

    def _ask(self) -> bool:
        """Whether there was one left to ask."""
        captured = next(self._left, None)
        if captured is None:
            return False
        try:
            was, now = ask_both(captured.logged, self._live, self._next, self._turn)
        except Lost as lost:
            self._away = str(lost)
            self._count_lost(lost)
        except Away as error:
            self._left, self._away = chain([captured], self._left), str(error)
            return True
        else:
            self._count(was, now)
        self._counted.asked[captured.file.name] = captured.number
        return True

    def _count(self, was: Reply, now: Reply) -> None:
        if was.error and now.error:  # nobody has answered, so nothing was compared
            self._counted.dropped += 1
        else:
            count_pair(self._counted, was, now, changes(was, now, Tolerance()), timed=True)

    def _count_lost(self, lost: Lost) -> None:
        """What a server may have died of is asked of nobody again, or the next one dies of it too;
        it counts as an error of the version on trial, as where gateways ask."""
        if lost.side is self._next:
            found = [Change(Kind.ERROR, str(lost))]
            count_pair(self._counted, None, lost.reply, found, timed=False)
        else:
            self._counted.dropped += 1

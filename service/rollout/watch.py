"""What has been seen of a rollout so far, held against its guard: go on, wait, or stop.

Everything is counted by gateways and looked at about once a second; the tests hold however often
that is (sequential.py). What one look adds to the look before is a batch.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import accumulate
from typing import NamedTuple

from service.replay.changes import Kind
from service.rollout.evidence import BOUNDS_S, SLOWER, Answers, Evidence
from service.rollout.guard import ERRORS, NOVEL, SLOW, SLOWER_PAIRS, UNSURE, Guard
from service.rollout.sequential import Balance, Comparison, Rate, enough
from sluice.wire.rollouts import Rollout, Stage

KNOWN = 100  # answers of the live version, from which on its own slow and unsure ones are known
SLOW_SHARE, UNSURE_SHARE = 0.01, 0.1  # of the live version's answers
# What is allowed more seldom cannot be shown to be so in a bearable time; it can only be exceeded.
SHOWABLE = 0.01
# The evidence against a version that is too little to stop it, and too much to let it go on.
DOUBT = enough(0.1)
NOTHING_SEEN = (
    "no gateway has counted anything yet: one that answers requests and has this repository "
    "(SLUICE_MODEL_REPOSITORY) does"
)


class Finding(NamedTuple):
    """Of one thing that the guard bounds. `seen` in words; `worse`: evidence that more of it is
    there than is allowed; `shown`: whether it is known to be within the bound, None where that
    need not be."""

    name: str
    seen: str
    worse: float
    shown: bool | None = None


class _Count(NamedTuple):
    hits: int
    trials: int


class Action(StrEnum):
    """What to do with a rollout now."""

    WAIT = "wait"
    ADVANCE = "advance"
    STOP = "stop"


class Verdict(NamedTuple):
    """`share`: the canary's from now on where it advances, 1 to promote."""

    action: Action
    why: str
    share: float = 0.0


@dataclass
class Watch:
    """`seen`: the evidence at the last look. `canary`: how many requests the canary had answered
    when its present share began. `replays`: whether `seen` is of the stage replay, and so of what
    was captured."""

    guard: Guard
    seen: Evidence
    comparisons: dict[str, Comparison] = field(default_factory=dict)
    share: float = 0.0
    canary: int = 0
    replays: bool = False

    def __post_init__(self) -> None:
        for name, allowed in self.guard.times.items():
            self.comparisons.setdefault(name, Comparison(allowed))

    def look(self, evidence: Evidence, rollout: Rollout) -> None:
        """At the sum of all that was counted so far, in any stage but a pause of the replay. Where
        files of it were lost, what is left of it is where the next batch begins."""
        replays = rollout.stage is Stage.REPLAY
        if self.replays and not replays:  # what was captured says nothing of what is asked now
            self.comparisons = {name: Comparison(own) for name, own in self.guard.times.items()}
        else:
            self._compare(evidence)
        self.replays = replays
        # A pause keeps the share, and what was answered at it.
        if rollout.canary_share != self.share:
            self.share, self.canary = rollout.canary_share, evidence.canary.requests
        self.seen = evidence

    def _compare(self, evidence: Evidence) -> None:
        for name, ours, theirs in _sides(self.seen, evidence):
            if min(*ours, *theirs) >= 0:
                self.comparisons[name].add(*ours, *theirs)

    def findings(self) -> list[Finding]:
        """One of each thing that the guard bounds, the gravest first."""
        found = [*self._of_rates(), *self._of_comparisons()]
        return sorted(found, key=lambda finding: -finding.worse)

    def verdict(self, rollout: Rollout, now: float) -> Verdict:
        """For a rollout in the stage replay, shadow or canary, at a time in seconds since 1970."""
        found = self.findings()
        breaches = [each for each in found if each.worse >= enough(self.guard.alpha, len(found))]
        if breaches:
            return Verdict(Action.STOP, "; ".join(each.seen for each in breaches))
        return self._not_yet(found, rollout, now) or self._next_step(rollout)

    def _not_yet(self, found: list[Finding], rollout: Rollout, now: float) -> Verdict | None:
        guard, pairs = self.guard, self.seen.pairs
        open_ones = [each.seen for each in found if each.shown is False or each.worse >= DOUBT]
        if open_ones and pairs >= guard.patience:
            told = f"not shown to be good in {pairs} requests: {'; '.join(open_ones)}"
            return Verdict(Action.STOP, told)
        if not pairs and not self.seen.dropped:
            return Verdict(Action.WAIT, NOTHING_SEEN)
        if pairs < guard.pairs:
            return Verdict(Action.WAIT, f"{pairs} of {guard.pairs} requests shadowed")
        if open_ones:
            return Verdict(Action.WAIT, f"more is to be seen: {'; '.join(open_ones)}")
        rest = rollout.history[-1].at + guard.seconds - now if rollout.history else 0.0
        if rest > 0:
            return Verdict(Action.WAIT, f"{rest:.0f} s more in this stage")
        return None

    def _next_step(self, rollout: Rollout) -> Verdict:
        """Where nothing speaks against it."""
        steps = self.guard.steps
        answered = self.seen.canary.requests - self.canary
        if rollout.stage is Stage.CANARY:
            for step in steps:
                if step.share == rollout.canary_share and answered < step.requests:
                    told = f"{answered} of {step.requests} requests answered at {step.share:.0%}"
                    return Verdict(Action.WAIT, told)
        share = next((step.share for step in steps if step.share > rollout.canary), 1.0)
        told = f"{self.seen.pairs} requests compared, {self.seen.canary.requests} answered"
        return Verdict(Action.ADVANCE, f"{told}, all within bounds", share)

    def _of_rates(self) -> Iterator[Finding]:
        for name, allowed in self.guard.allowed.items():
            test: Rate | Balance
            if name == SLOWER_PAIRS:
                test = Balance(allowed, self.seen.slower, self.seen.faster, self.seen.timed)
                told = _of_balance(test)
            else:
                test = Rate(allowed, self.seen.changes.get(name, 0), self.seen.pairs)
                told = _of(test, _TOLD[Kind(name)])
            showable = SHOWABLE <= allowed < 1
            shown = test.seldom >= enough(self.guard.alpha) if showable else None
            yield Finding(name, told, test.too_often, shown)

    def _of_comparisons(self) -> Iterator[Finding]:
        for name, comparison in self.comparisons.items():
            told = f"{_TOLD_OFTEN[name]} over {comparison.allowed:g} times as often as live"
            yield Finding(name, told, comparison.too_often)


_TOLD = {
    Kind.ERROR: "failed where live had an answer",
    Kind.NAN: "were no numbers",
    Kind.SHAPE: "had another shape",
    Kind.CLASS: "had another best class",
    Kind.MASK: "had another mask",
    Kind.VALUE: "had another value",
    Kind.SCORE: "had another score",
    Kind.ANSWER: "were answered where live failed",
}
_TOLD_OFTEN = {
    ERRORS: "failed",
    SLOW: "answered late",
    UNSURE: "was unsure",
    NOVEL: "found pictures novel",
}


def _of(rate: Rate, told: str) -> str:
    return f"{rate.hits} of {rate.trials} {told} (allowed: {rate.allowed:.3g})"


def _of_balance(times: Balance) -> str:
    return (
        f"{times.more} of {times.trials} took over {SLOWER:g} times as long as live, {times.less} "
        f"the other way round (allowed: {times.allowed:.3g} of them more)"
    )


def _sides(before: Evidence, now: Evidence) -> Iterator[tuple[str, _Count, _Count]]:
    """Of each comparison, what was counted of the next version and of the live one between two
    looks. From which time or score on an answer counts is told by what had been seen before, so
    that it is not chosen by what it then counts."""
    canary, stable = _since(before.canary, now.canary), _since(before.stable, now.stable)
    ours = _since(before.shadow_next, now.shadow_next)
    theirs = _since(before.shadow_live, now.shadow_live)
    late, sure = _late_from(before.stable.seconds), _sure_from(before.shadow_live.scores)
    yield ERRORS, _Count(canary.errors, canary.requests), _Count(stable.errors, stable.requests)
    yield NOVEL, _Count(ours.novel, ours.told), _Count(theirs.novel, theirs.told)
    yield SLOW, _late(canary, late), _late(stable, late)
    yield UNSURE, _unsure(ours, sure), _unsure(theirs, sure)


def _late(answers: Answers, late: int) -> _Count:
    return _Count(sum(answers.seconds[late:]), sum(answers.seconds))


def _unsure(answers: Answers, sure: int) -> _Count:
    return _Count(sum(answers.scores[:sure]), sum(answers.scores))


def _since(before: Answers, now: Answers) -> Answers:
    return Answers(
        now.requests - before.requests,
        now.errors - before.errors,
        _added(before.seconds, now.seconds),
        now.told - before.told,
        now.novel - before.novel,
        _added(before.scores, now.scores),
    )


def _added(before: list[int], now: list[int]) -> list[int]:
    return [late - early for early, late in zip(before, now, strict=True)]


def _late_from(seconds: list[int]) -> int:
    """The first of the counts that are of answers later than SLOWER times what all but SLOW_SHARE
    of these take; past the last where that is not known."""
    most = sum(seconds) * (1 - SLOW_SHARE)
    within = bisect_left(list(accumulate(seconds)), most)
    if sum(seconds) < KNOWN or within >= len(BOUNDS_S):
        return len(seconds)
    return bisect_left(BOUNDS_S, SLOWER * BOUNDS_S[within]) + 1


def _sure_from(scores: list[int]) -> int:
    """The first of the counts that are of better scores than UNSURE_SHARE of these; 0 where that is
    not known."""
    if sum(scores) < KNOWN:
        return 0
    return bisect_right(list(accumulate(scores)), sum(scores) * UNSURE_SHARE)

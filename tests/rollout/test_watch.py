"""A guard over versions that are drawn: which are stopped, and how many users they reach."""

from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import pytest

from service.replay.changes import Kind
from service.rollout.evidence import Answers, Evidence
from service.rollout.guard import Guard, GuardError, Step, parse_guard
from service.rollout.watch import Action, Watch
from sluice.wire.rollouts import Rollout, Stage

GUARD = Guard(pairs=300, seconds=0, steps=(Step(0.1, 20), Step(0.5, 100)))
LOOK = 10  # requests
MOST = 8000  # requests of a case


@dataclass(frozen=True)
class Version:
    """How one behaves beside the live version. `slowness`: times as long, both times drawn."""

    other_class: float = 0.015
    no_number: float = 0.0
    error: float = 0.0
    slowness: float = 1.0
    unsure: float = 0.08
    novel: float = 0.005


LIVE = Version()


class Traffic:
    """Requests of one case, and what gateways would count of them."""

    def __init__(self, version: Version, seed: int) -> None:
        self._chance = np.random.default_rng(seed)
        self._version = version
        self.rollout = Rollout("a", 1, 2, Stage.SHADOW).moved(Stage.SHADOW, "", 0.0)
        self.evidence = Evidence("a")

    def go_on(self) -> Evidence:
        """LOOK requests more."""
        self.evidence = deepcopy(self.evidence)
        for _ in range(LOOK):
            if self._chance.random() < self.rollout.canary:
                self._answer(self.evidence.canary, self._version)
            else:
                self._answer(self.evidence.stable, LIVE)
                self._shadow()
        return self.evidence

    def _shadow(self) -> None:
        evidence, version = self.evidence, self._version
        evidence.pairs += 1
        found = [
            kind
            for kind, share in (
                (Kind.CLASS, version.other_class),
                (Kind.NAN, version.no_number),
                (Kind.ERROR, version.error),
            )
            if self._chance.random() < share
        ]
        for kind in found:
            evidence.changes[kind] = evidence.changes.get(kind, 0) + 1
        evidence.timed += 1
        took = [
            self._answer(evidence.shadow_live, LIVE),
            self._answer(evidence.shadow_next, version),
        ]
        evidence.slower += took[1] > 1.5 * took[0]
        evidence.faster += took[0] > 1.5 * took[1]

    def _answer(self, answers: Answers, version: Version) -> float:
        if self._chance.random() < version.error:
            answers.fail()
            return 0.0
        seconds = 0.002 * version.slowness * self._chance.lognormal(0, 0.3)
        answers.add(seconds)
        answers.told += 1
        answers.novel += self._chance.random() < version.novel
        unsure = self._chance.random() < version.unsure
        answers.scores[int(self._chance.integers(6, 12) if unsure else 19)] += 1
        return seconds


def rolled_out(version: Version, seed: int, guard: Guard = GUARD) -> tuple[bool, int, str]:
    """Whether it came through, how many users it answered, and what was told."""
    traffic = Traffic(version, seed)
    watch = Watch(guard, traffic.evidence)
    for _ in range(MOST // LOOK):
        watch.look(traffic.go_on(), traffic.rollout)
        verdict = watch.verdict(traffic.rollout, 1.0)
        if verdict.action is Action.STOP or verdict.share == 1:
            return verdict.action is Action.ADVANCE, traffic.evidence.canary.requests, verdict.why
        if verdict.action is Action.ADVANCE:
            traffic.rollout = traffic.rollout.moved(Stage.CANARY, verdict.why, 0.0, verdict.share)
    return False, traffic.evidence.canary.requests, "never decided"


def test_a_harmless_version_comes_through() -> None:
    outcomes = [rolled_out(LIVE, seed) for seed in range(10)]
    assert [why for came, _, why in outcomes if not came] == []
    assert min(canary for _, canary, _ in outcomes) >= 120


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (Version(other_class=0.9), "had another best class"),
        (Version(other_class=0.12), "had another best class"),
        (Version(no_number=1 / 100), "were no numbers"),
        (Version(error=0.05), "failed where live had an answer"),
        (Version(slowness=2.0), "took over 1.5 times as long"),
        (Version(unsure=0.5), "was unsure"),
        (Version(novel=0.2), "found pictures novel"),
    ],
)
def test_a_bad_one_is_stopped_before_a_user_meets_it(bad, told) -> None:
    for seed in range(5):
        came, canary, why = rolled_out(bad, seed)
        assert not came
        assert told in why
        assert canary == 0


def test_what_only_users_meet_is_stopped_at_few_of_them() -> None:
    """Errors that shadowed requests do not show, as of a server that is too busy."""
    traffic = Traffic(LIVE, 1)
    traffic.rollout = traffic.rollout.moved(Stage.CANARY, "", 0.0, 0.1)
    watch = Watch(GUARD, traffic.evidence)
    watch.look(traffic.go_on(), traffic.rollout)
    while True:
        evidence = traffic.go_on()
        evidence.canary.errors = evidence.canary.requests // 2
        watch.look(evidence, traffic.rollout)
        verdict = watch.verdict(traffic.rollout, 1.0)
        if verdict.action is Action.STOP:
            break
        assert evidence.canary.requests < 50
    assert "failed over 2 times as often as live" in verdict.why


def test_what_cannot_be_shown_to_be_good_is_stopped_in_the_end() -> None:
    came, canary, why = rolled_out(Version(other_class=0.05), 3, replace(GUARD, patience=1000))
    assert (came, canary) == (False, 0)
    assert "not shown to be good" in why


def test_a_stage_lasts_as_long_as_it_is_to() -> None:
    traffic = Traffic(LIVE, 4)
    watch = Watch(replace(GUARD, seconds=60.0), traffic.evidence)
    for _ in range(MOST // LOOK):
        watch.look(traffic.go_on(), traffic.rollout)
    assert watch.verdict(traffic.rollout, 59.0).action is Action.WAIT
    assert watch.verdict(traffic.rollout, 61.0).action is Action.ADVANCE


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("pairs", "it is no TOML"),
        ("pair = 3", "pair is not known; did you mean pairs?"),
        ("pairs = 1.5", "pairs: expected a whole number of 0 or more, got 1.5"),
        ("pairs = -1", "pairs: expected a whole number of 0 or more, got -1"),
        ("seconds = inf", "seconds: expected a number from 0 to 1e+09, got inf"),
        ("seconds = 1" + 400 * "0", "seconds: expected a number from 0 to 1e+09, got 1000"),
        ("alpha = 0", "alpha: expected more than 0"),
        ("alpha = true", "alpha: expected a number from 0 to 0.5, got True"),
        ("allowed = 3", "allowed: expected a table, [allowed], got 3"),
        ("[allowed]\nclasses = 0.1", "allowed.classes is not known; did you mean class?"),
        ("[allowed]\nclass = 2", "allowed.class: expected a number from 0 to 1, got 2"),
        ("[times]\nerrors = -1", "times.errors: expected a number from 0 to 1e+09, got -1"),
        ("[times]\nerrors = 0", "times.errors: expected more than 0: live does it too"),
        ("[times]\nerrors = nan", "times.errors: expected a number from 0 to 1e+09, got nan"),
        ("[times]\nslow = inf", "times.slow: expected a number from 0 to 1e+09, got inf"),
        ("steps = 3", "steps: expected [[steps]] tables"),
        ("[[steps]]\nrequests = 2", "steps: share is missing in {'requests': 2}"),
        ("steps = [{share = 0.1, requests = -2}]", "steps.requests: expected a whole number of 0"),
        (
            "steps = [{share = 0.1, requests = 1}, {share = 0.1, requests = 1}]",
            "expected shares that grow, got [0.1,",
        ),
        ("[[steps]]\nshares = 0.1", "steps.shares is not known; did you mean share?"),
    ],
)
def test_a_bad_guard_is_told_what_is_wrong(text, told) -> None:
    with pytest.raises(GuardError) as error:
        parse_guard(text)
    assert told in str(error.value)


def test_a_guard_says_what_it_says_and_the_rest_is_as_by_default() -> None:
    guard = parse_guard("pairs = 9\n[allowed]\nscore = 0.5\n[[steps]]\nshare = 0.2\nrequests = 1")
    assert (guard.pairs, guard.allowed["score"], guard.allowed["class"]) == (9, 0.5, 0.05)
    assert guard.steps == (Step(0.2, 1),)
    assert parse_guard("") == Guard()

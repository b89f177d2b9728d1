"""A guarded rollout from shadow to promoted, or back, whoever is killed on the way."""

import resource
import threading
from dataclasses import asdict
from pathlib import Path

import pytest

from service.replay.changes import Kind
from service.rollout.evidence import Evidence, evidence_directory, read_evidence, write_evidence
from service.rollout.following import follow, read_watch, step
from service.rollout.guard import Guard, Step
from service.rollout.state import abort, pause, start
from service.rollout.watch import Action
from sluice.wire.rollout_files import read_rollout
from sluice.wire.rollouts import Stage
from tests.gateway.rollouts import eventually

GUARD = Guard(pairs=300, seconds=0, steps=(Step(0.1, 20),))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A repository's model with two versions, as far as files go."""
    for version in "12":
        (tmp_path / "digits" / version).mkdir(parents=True)
        (tmp_path / "digits" / version / "saved_model.pb").touch()
    start(tmp_path / "digits", 2)
    return tmp_path / "digits"


class Gateway:
    """What one writes: as many requests more, each time it is told to."""

    def __init__(self, model: Path, changed: float = 0.0) -> None:
        self._model, self._changed = model, changed

    def answer(self, requests: int = 400) -> None:
        rollout = read_rollout(self._model)
        assert rollout
        seen = read_evidence(self._model, rollout.id)
        seen.pairs += requests
        seen.timed += requests
        seen.changes[Kind.CLASS] = round(seen.pairs * self._changed)
        for _ in range(round(requests * rollout.canary)):
            seen.canary.add(0.002)
        for _ in range(round(requests * (1 - rollout.canary))):
            seen.stable.add(0.002)
        write_evidence(evidence_directory(self._model, rollout.id) / "one.json", seen)


def stage_of(model: Path) -> Stage:
    rollout = read_rollout(model)
    assert rollout
    return rollout.stage


def test_a_sound_version_is_promoted_step_by_step(model: Path) -> None:
    gateway, told = Gateway(model), []

    def tell(rollout, verdict) -> None:
        told.append((rollout.stage, verdict.action, verdict.share))
        gateway.answer()

    ended = follow(model, GUARD, tell, look_s=0)
    assert ended
    assert (ended.stage, ended.answering) == (Stage.PROMOTED, 2)
    assert [each for each in told if each[1] is Action.ADVANCE] == [
        (Stage.SHADOW, Action.ADVANCE, 0.1),
        (Stage.CANARY, Action.ADVANCE, 1.0),
    ]
    assert [event.stage for event in ended.history] == [Stage.SHADOW, Stage.CANARY, Stage.PROMOTED]


def test_one_that_answers_otherwise_goes_back_and_the_reason_stays(model: Path) -> None:
    Gateway(model, changed=0.5).answer()
    ended = follow(model, GUARD, lambda *_: None, look_s=0)
    assert ended
    assert (ended.stage, ended.answering) == (Stage.ROLLED_BACK, 1)
    assert ended.history[-1].why == "200 of 400 had another best class (allowed: 0.05)"


def test_of_two_who_follow_one_does_and_the_other_goes_on_after_it(model: Path) -> None:
    gateway, told = Gateway(model), []
    stopped = threading.Event()

    def first(*_) -> None:
        stopped.set()
        assert eventually(lambda: told)
        raise KeyboardInterrupt

    def other(_, verdict) -> None:
        told.append(verdict.why)
        gateway.answer()

    def follow_first() -> None:
        with pytest.raises(KeyboardInterrupt):
            follow(model, GUARD, first, look_s=0)

    following = threading.Thread(target=follow_first)
    following.start()
    assert stopped.wait(60)
    ended = follow(model, GUARD, other, look_s=0.01)
    following.join()
    assert ended
    assert ended.stage is Stage.PROMOTED
    assert told[0] == "another command follows it; this one goes on where that one ends"


def test_another_rollout_is_not_followed(model: Path) -> None:
    def tell(*_) -> None:
        abort(model)
        start(model, 2)

    assert follow(model, GUARD, tell, look_s=0) is None
    assert stage_of(model) is Stage.SHADOW


def test_what_cannot_be_written_is_told_and_tried_again(model: Path) -> None:
    """A disk that is full: the verdict is told, and done once there is room."""
    Gateway(model, changed=0.5).answer()
    before, told = resource.getrlimit(resource.RLIMIT_FSIZE), []

    def tell(_, verdict) -> None:
        told.append(verdict.why)
        if "tried again" in verdict.why:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        ended = follow(model, GUARD, tell, look_s=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert ended
    assert ended.stage is Stage.ROLLED_BACK
    stop = "200 of 400 had another best class (allowed: 0.05)"
    assert told == [stop, f"{model}: File too large; it is tried again", stop]


def test_whoever_begins_anew_knows_what_was_seen(model: Path) -> None:
    rollout = read_rollout(model)
    assert rollout
    for _ in range(3):
        Gateway(model).answer()
        watch = read_watch(model, rollout, GUARD)
        step(model, watch, rollout, lambda *_: None)
    again = read_watch(model, rollout, GUARD)
    assert asdict(again.seen) == asdict(read_evidence(model, rollout.id))
    assert {name: each.too_often for name, each in again.comparisons.items()} == {
        name: each.too_often for name, each in watch.comparisons.items()
    }
    step(model, again, rollout, lambda *_: None)  # nothing new: nothing counts twice
    assert again.seen.pairs == 1200


def test_a_bound_that_was_changed_begins_anew(model: Path) -> None:
    rollout = read_rollout(model)
    assert rollout
    watch = read_watch(model, rollout, GUARD)
    watch.comparisons["errors"].add(5, 100, 1, 100)
    Gateway(model).answer()
    step(model, watch, rollout, lambda *_: None)
    assert read_watch(model, rollout, GUARD).comparisons["errors"].too_often != 0
    other = Guard(times={"errors": 3.0})
    assert read_watch(model, rollout, other).comparisons["errors"].too_often == 0


@pytest.mark.parametrize("text", ["", "{", "[]", '{"seen": 3}', '{"comparisons": [[1, 2, 3]]}'])
def test_a_file_that_is_torn_is_begun_anew(model: Path, text: str) -> None:
    rollout = read_rollout(model)
    assert rollout
    folder = evidence_directory(model, rollout.id)
    folder.mkdir(parents=True)
    (folder / ".watch.json").write_text(text)
    assert asdict(read_watch(model, rollout, GUARD).seen) == asdict(Evidence(rollout.id))


@pytest.mark.parametrize("moved", [abort, pause])
def test_what_somebody_has_stopped_meanwhile_is_not_moved_on(model: Path, moved) -> None:
    Gateway(model).answer()
    rollout = read_rollout(model)
    assert rollout
    watch = read_watch(model, rollout, GUARD)
    step(model, watch, rollout, lambda *_: moved(model))
    assert stage_of(model) in (Stage.ROLLED_BACK, Stage.PAUSED)


def test_evidence_that_was_lost_is_not_counted_against_anyone(model: Path) -> None:
    rollout = read_rollout(model)
    assert rollout
    Gateway(model).answer()
    watch = read_watch(model, rollout, GUARD)
    step(model, watch, rollout, lambda *_: None)
    (evidence_directory(model, rollout.id) / "one.json").unlink()
    write_evidence(
        evidence_directory(model, rollout.id) / "other.json", Evidence(rollout.id, pairs=7)
    )
    rollout = read_rollout(model)
    assert rollout
    step(model, watch, rollout, lambda *_: None)
    assert watch.seen.pairs == 7
    assert max(finding.worse for finding in watch.findings()) <= 0

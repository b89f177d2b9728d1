"""A guarded rollout from shadow to promoted, or back, whoever is killed on the way."""

import json
import resource
import threading
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from service.replay.changes import Kind
from service.rollout.evidence import (
    REPLAYED,
    Evidence,
    evidence_directory,
    read_evidence,
    write_evidence,
)
from service.rollout.following import follow, read_watch, step
from service.rollout.guard import Guard, Step
from service.rollout.state import abort, canary, end, pause, resume, start
from service.rollout.watch import Action
from sluice.wire.rollout_files import read_rollout
from sluice.wire.rollouts import Rollout, Stage
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


@pytest.mark.parametrize("move", [abort, lambda model: canary(model, 0.5)], ids=["abort", "canary"])
def test_after_a_look_that_failed_the_next_is_at_the_rollout_as_it_is_then(
    model: Path, move
) -> None:
    """However often looks fail: it may have been moved meanwhile."""
    Gateway(model).answer()
    rollout = read_rollout(model)
    assert rollout
    loop = evidence_directory(model, rollout.id) / "other.json"
    loop.symlink_to(loop)
    moved = []

    def tell(seen, _) -> None:
        if seen.stage is not Stage.SHADOW:
            raise KeyboardInterrupt  # it has been seen
        assert not moved, "it looks at what was"
        moved.append(move(model))

    try:
        ended = follow(model, GUARD, tell, look_s=0)
    except KeyboardInterrupt:
        assert stage_of(model) is Stage.CANARY
    else:
        assert ended
        assert ended.stage is Stage.ROLLED_BACK
    assert moved


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


def _watched(model: Path) -> Rollout:
    """A rollout with a file of what was watched, errors among it."""
    rollout = read_rollout(model)
    assert rollout
    watch = read_watch(model, rollout, GUARD)
    watch.comparisons["errors"].add(5, 100, 1, 100)
    Gateway(model).answer()
    step(model, watch, rollout, lambda *_: None)
    return rollout


def test_a_bound_that_was_changed_begins_anew(model: Path) -> None:
    rollout = _watched(model)
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


def test_a_file_that_lacks_something_counts_nothing_twice(model: Path) -> None:
    rollout = _watched(model)
    file = evidence_directory(model, rollout.id) / ".watch.json"
    kept = json.loads(file.read_text())
    for name in kept:
        file.write_text(json.dumps({key: value for key, value in kept.items() if key != name}))
        again = read_watch(model, rollout, GUARD)
        assert asdict(again.seen) == asdict(Evidence(rollout.id))
        assert again.comparisons["errors"].too_often == 0


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


def of_replay(model: Path, requests: int) -> Rollout:
    """A rollout in the stage replay, of which so many captured requests have been compared."""
    abort(model)
    end(model)
    rollout = start(model, 2, stage=Stage.REPLAY)
    seen = Evidence(rollout.id, pairs=requests, timed=requests, changes={Kind.CLASS: 1})
    seen.shadow_next.told = seen.shadow_live.told = requests
    seen.shadow_next.novel = requests // 2
    write_evidence(evidence_directory(model, rollout.id) / REPLAYED, seen)
    return rollout


def test_what_was_captured_counts_while_it_is_asked_and_not_for_what_comes_then(
    model: Path,
) -> None:
    """However much of it there is: the version has still to be met by requests of today."""
    rollout = of_replay(model, 1000)
    guard = replace(GUARD, times={**GUARD.times, "novel": 1e6})
    watch = read_watch(model, rollout, guard)
    step(model, watch, rollout, lambda *_: None)
    assert (watch.seen.pairs, stage_of(model)) == (1000, Stage.SHADOW)
    assert watch.comparisons["novel"].too_often != 0
    again = read_watch(model, rollout, guard)  # as after a command that was killed here
    after = read_rollout(model)
    assert after
    for each in (watch, again):
        step(model, each, after, lambda *_: None)
        assert asdict(each.seen) == asdict(Evidence(rollout.id))
        assert each.comparisons["novel"].too_often == 0
    assert stage_of(model) is Stage.SHADOW
    assert read_evidence(model, rollout.id).pairs == 1000


def test_a_pause_of_a_replay_counts_nothing_twice(model: Path) -> None:
    rollout = of_replay(model, 10)
    watch = read_watch(model, rollout, GUARD)
    watch.look(read_evidence(model, rollout.id), rollout)
    before = watch.comparisons["novel"].too_often
    assert before != 0
    step(model, watch, pause(model), lambda *_: None)
    assert watch.seen.pairs == 10
    watch.look(read_evidence(model, rollout.id), resume(model))
    assert (watch.seen.pairs, watch.comparisons["novel"].too_often) == (10, before)


def test_what_live_answers_in_a_pause_is_in_no_batch_with_the_canary(model: Path) -> None:
    """It may have been a bad time, that the next version had no part in."""
    gateway, rollout = Gateway(model), canary(model, 0.1)
    gateway.answer()
    watch = read_watch(model, rollout, GUARD)
    step(model, watch, rollout, lambda *_: None)
    gateway.answer()
    paused = pause(model)
    gateway.answer()
    step(model, watch, paused, lambda *_: None)
    assert watch.seen.stable.requests == 360 + 360 + 400
    step(model, watch, resume(model), lambda *_: None)
    assert (watch.share, watch.canary, watch.seen.canary.requests) == (0.1, 40, 80)


def test_evidence_that_cannot_be_read_is_told_and_no_part_of_it_counted(model: Path) -> None:
    """Without a file that is there the sum would shrink, and count again what was counted."""
    gateway, told = Gateway(model), []
    gateway.answer()
    rollout = read_rollout(model)
    assert rollout
    loop = evidence_directory(model, rollout.id) / "other.json"
    loop.symlink_to(loop)

    def tell(_, verdict) -> None:
        told.append(verdict.why)
        loop.unlink(missing_ok=True)
        gateway.answer()

    ended = follow(model, GUARD, tell, look_s=0)
    assert told[0] == f"{loop}: Too many levels of symbolic links; it is tried again"
    assert ended
    assert ended.stage is Stage.PROMOTED

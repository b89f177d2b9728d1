"""A rollout's state: what becomes of it, what the file may say, and two who change it at once."""

import json
import math
import multiprocessing
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from service.rollout import state
from service.rollout.evidence import Evidence, evidence_directory, read_evidence, write_evidence
from service.rollout.state import StateError, goes_to_next
from sluice.wire.rollout_files import MOST_BYTES, ROLLOUT_FILE, read_rollout, write_rollout
from sluice.wire.rollouts import MOST_EARLIER, Event, Rollout, Stage


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    for number in (1, 2, 3):
        version = tmp_path / "digits" / str(number)
        version.mkdir(parents=True)
        (version / "saved_model.pb").write_bytes(b"")
    return tmp_path / "digits"


def test_a_rollout_goes_from_shadow_to_canary_to_all(digits: Path) -> None:
    state.start(digits, 3, by="header:x-user")
    state.canary(digits, 0.1)
    state.canary(digits, 0.5, "no change of 2,000")
    rollout = state.promote(digits)
    assert read_rollout(digits) == rollout
    assert (rollout.answering, rollout.labels, sorted(rollout.loaded)) == (3, {"stable": 3}, [2, 3])
    told = [(event.stage, event.canary_share, event.why) for event in rollout.history]
    assert told == [
        ("shadow", 0, "by hand"),
        ("canary", 0.1, "by hand"),
        ("canary", 0.5, "no change of 2,000"),
        ("promoted", 0, "by hand"),
    ]
    back = state.abort(digits)
    assert (back.answering, back.labels, sorted(back.loaded)) == (2, {"stable": 2}, [2])


def test_what_is_paused_goes_on_where_it_was(digits: Path) -> None:
    for stage in (Stage.REPLAY, Stage.SHADOW):
        state.start(digits, 3, stage=stage)
        assert state.pause(digits).shadow == 0
        assert state.resume(digits).stage is stage
        state.shadow(digits)
    state.canary(digits, 0.25)
    paused = state.pause(digits)
    assert (paused.canary, paused.answering, paused.labels["canary"]) == (0, 2, 3)
    assert state.resume(digits).canary == 0.25


def test_a_command_again_changes_nothing(digits: Path) -> None:
    once = state.start(digits, 3)
    assert state.start(digits, 3) == once
    for again in (state.pause, state.resume, state.promote, state.abort):
        once = again(digits)
        assert again(digits) == once
    assert once.stage is Stage.ROLLED_BACK


def test_the_version_that_is_live_is_the_one_that_answered_before(digits: Path) -> None:
    assert state.start(digits, 2).live == 3
    with pytest.raises(StateError, match="digits 2 is being rolled out"):
        state.start(digits, 3)
    state.abort(digits)
    state.end(digits)
    state.start(digits, 2, live=1)
    state.abort(digits)
    assert state.start(digits, 3).live == 1
    promoted = state.promote(digits)
    assert state.start(digits, 3) == promoted
    assert state.hold(digits).answering == 3
    with pytest.raises(StateError, match="digits 3 is what answers already"):
        state.start(digits, 3)


def test_a_version_that_is_gone_is_left_by_the_way_back(digits: Path) -> None:
    state.start(digits, 3)
    shutil.rmtree(digits / "3")
    for move in (state.pause, state.promote):
        with pytest.raises(StateError, match="digits has no version 3; there are: 1, 2"):
            move(digits)
    assert state.abort(digits).answering == 2
    assert state.start(digits, 2, live=1).live == 1


def test_what_became_of_earlier_rollouts_is_remembered_as_far_as_it_is_kept(digits: Path) -> None:
    state.start(digits, 3)
    state.abort(digits, "it was slow")
    state.start(digits, 3)
    state.promote(digits)
    held = state.hold(digits)
    told = [(each.live, each.next, each.history[-1].why) for each in held.earlier]
    assert told == [(2, 3, "it was slow"), (2, 3, "by hand")]
    assert read_rollout(digits) == held
    for _ in range(MOST_EARLIER):
        state.start(digits, 2)
        state.abort(digits)
    state.hold(digits)
    kept = state.start(digits, 2).earlier
    assert [each.live for each in kept] == [3] * MOST_EARLIER


def test_a_history_of_any_length_can_be_read_again(digits: Path) -> None:
    """What is oldest goes, but for how the rollout began: from there the way back is known."""
    state.start(digits, 3)
    state.abort(digits)
    begun = state.start(digits, 1, why="the first")
    event = Event(1.8e9, Stage.CANARY, 0.5, "by hand")
    many = replace(begun, stage=Stage.CANARY, history=begun.history + (event,) * 10_000)
    write_rollout(digits, many)
    found = read_rollout(digits)
    assert found is not None
    assert (found.id, found.stage, found.earlier) == (begun.id, Stage.CANARY, ())
    assert found.history[0] == begun.history[0]
    assert 1000 < len(found.history) < 10_000
    state.abort(digits)
    back = read_rollout(digits)
    assert back is not None
    assert (back.answering, back.history[-1].stage) == (2, Stage.ROLLED_BACK)
    with pytest.raises(ValueError, match="give a shorter reason"):
        state.start(digits, 3, why="x" * MOST_BYTES)
    assert read_rollout(digits) == back


def test_what_could_not_be_read_again_is_not_written(digits: Path) -> None:
    begun = state.start(digits, 3)
    with pytest.raises(ValueError, match="canary_share: expected a number from 0 to 1, got nan"):
        state.canary(digits, math.nan)
    with pytest.raises(ValueError, match="by: expected random, key or header:NAME"):
        write_rollout(digits, replace(begun, by="header:X User"))
    assert read_rollout(digits) == begun


@pytest.mark.parametrize(
    ("version", "live", "told"),
    [
        (9, None, "no version 9; there are: 1, 2, 3"),
        (3, 9, "no version 9"),
        (3, 3, "answers already"),
    ],
)
def test_what_cannot_begin(digits: Path, version: int, live: int | None, told: str) -> None:
    with pytest.raises(StateError, match=told):
        state.start(digits, version, live=live)
    assert read_rollout(digits) is None


def test_the_only_version_cannot_be_rolled_out(digits: Path) -> None:
    for number in "23":
        shutil.rmtree(digits / number)
    with pytest.raises(StateError, match="no version before 1: say which"):
        state.start(digits, 1)
    assert read_rollout(digits) is None


def test_an_older_version_is_rolled_out_beside_the_newest_that_answers(digits: Path) -> None:
    for version, live in ((1, 3), (2, 3), (3, 2)):
        assert state.start(digits, version).live == live
        state.abort(digits)
        state.end(digits)


def test_what_cannot_be_done_from_here(digits: Path) -> None:
    with pytest.raises(StateError, match="sluice rollout digits VERSION begins"):
        state.promote(digits)
    state.hold(digits, 2)
    with pytest.raises(StateError, match="version 2 is held, and none is being rolled out"):
        state.abort(digits)
    state.start(digits, 3)
    state.abort(digits)
    with pytest.raises(StateError, match="is rolled back: it cannot be promoted from there"):
        state.promote(digits)
    state.end(digits)
    assert read_rollout(digits) is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"stage": "halfway"}, "expected one of replay, shadow, canary"),
        ({"live": "1"}, "live: expected int, got '1'"),
        ({"live": True}, "live: expected int"),
        ({"next": 1}, "live and next are both 1"),
        ({"next": 7}, "there is no version 7 of digits"),
        ({"canary_share": 1.5}, "from 0 to 1, got 1.5"),
        ({"by": "header:"}, "by: expected random, key or header:NAME"),
        ({"history": [{"at": "noon", "stage": "shadow", "why": ""}]}, "history: Invalid isoformat"),
        ({"shares": 1}, "'shares' is no key of a rollout"),
        ({"id": "../../elsewhere"}, "id: expected 1 to 64 letters"),
        ({"id": ""}, "id: expected 1 to 64 letters"),
        ({"stage": "rolled_back", "next": 1 << 63}, "next: expected a version's number"),
        ({"history": "x" * 2**20}, "is no file, or has more than 1,048,576 bytes"),
        ({"earlier": [1]}, "earlier: expected objects, got 1"),
        ({"earlier": [{"live": 1}]}, "next: expected int, got None"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_file_that_is_none_is_told(digits: Path, change: dict[str, object], told: str) -> None:
    path = digits / ROLLOUT_FILE
    path.write_text(json.dumps({"id": "a", "live": 1, "next": 2, "stage": "shadow"} | change))
    with pytest.raises(ValueError, match=told) as caught:
        read_rollout(digits)
    assert len(str(caught.value)) < 300


def test_what_never_ends_is_told(digits: Path) -> None:
    path = digits / ROLLOUT_FILE
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="it is no JSON"):
        read_rollout(digits)
    path.unlink()
    os.mkfifo(path)  # whoever opens it waits for somebody to write
    with pytest.raises(ValueError, match="is no file"):
        read_rollout(digits)


@settings(max_examples=10)  # each waits for the disk
@given(
    some.builds(
        Rollout,
        some.from_regex("[A-Za-z0-9_-]{1,64}", fullmatch=True),
        some.just(1),
        some.just(2),
        some.sampled_from(Stage),
        some.floats(0, 1),
        some.floats(0, 1),
        some.sampled_from(["random", "key", "header:x-user"]),
    )
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, rollout: Rollout
) -> None:
    directory = tmp_path_factory.getbasetemp() / "written"
    for version in "12":
        (directory / version).mkdir(parents=True, exist_ok=True)
    rollout = rollout.moved(Stage.CANARY, "by hand", 1_800_000_000.25, 0.5)
    write_rollout(directory, rollout)
    assert read_rollout(directory) == rollout


def test_a_growing_share_only_adds_and_has_its_size() -> None:
    values = [f"user-{number}" for number in range(4000)]
    before: set[str] = set()
    for share in (0.01, 0.1, 0.5, 1.0):
        rollout = Rollout("a", 1, 2, Stage.CANARY, canary_share=share)
        chosen = {value for value in values if goes_to_next(rollout, "digits", value)}
        assert before <= chosen
        assert len(chosen) / len(values) == pytest.approx(share, abs=0.02)
        before = chosen
    other = Rollout("b", 1, 3, Stage.CANARY, canary_share=0.1)
    tenth = Rollout("a", 1, 2, Stage.CANARY, canary_share=0.1)
    both = [v for v in values if goes_to_next(tenth, "m", v) and goes_to_next(other, "m", v)]
    assert len(both) / len(values) < 0.03  # other users for another version


def _move_often(directory: Path) -> None:
    for share in range(20):
        state.canary(directory, share / 100)


def test_two_who_change_it_at_once_lose_nothing(digits: Path) -> None:
    state.start(digits, 3)
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=_move_often, args=(digits,)) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    rollout = read_rollout(digits)
    assert rollout is not None
    assert rollout.canary_share == 0.19
    assert 21 <= len(rollout.history) <= 41
    assert [event.at for event in rollout.history] == sorted(e.at for e in rollout.history)


def test_evidence_adds_up_over_workers_and_goes_with_the_next_rollout(digits: Path) -> None:
    first = state.start(digits, 3)
    for worker, pairs in (("one", 2), ("other", 3)):
        evidence = Evidence(first.id, pairs=pairs, changes={"class": 1, worker: 1})
        evidence.canary.add(0.004)
        evidence.canary.fail()
        write_evidence(evidence_directory(digits, first.id) / f"{worker}.json", evidence)
    (evidence_directory(digits, first.id) / "broken.json").write_text("{")
    found = read_evidence(digits, first.id)
    assert (found.pairs, found.changes) == (5, {"class": 2, "one": 1, "other": 1})
    assert (found.canary.requests, found.canary.errors, sum(found.canary.seconds)) == (4, 2, 2)
    state.abort(digits)
    second = state.start(digits, 3)
    assert read_evidence(digits, second.id) == Evidence(second.id)
    assert read_evidence(digits, first.id) == found  # for whoever looks back
    state.promote(digits)
    state.end(digits)
    assert read_evidence(digits, first.id) == Evidence(first.id)

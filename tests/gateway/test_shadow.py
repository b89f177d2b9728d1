"""Shadows in a real gateway: what the next version answers to nobody, compared and counted."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from click.testing import CliRunner

from service.captures import Captures
from service.cli import main
from service.rollout import state
from service.rollout.evidence import Evidence, read_evidence
from sluice.wire.prediction_logs import (
    CLASSIFY_LOG,
    MULTI_INFERENCE_LOG,
    PREDICT_LOG,
    REGRESS_LOG,
)
from tests.gateway.doors import DOORS, OF_EXAMPLES, X_0, Ask
from tests.gateway.rollouts import Door, eventually

ASKED = 20


def _shadowed(door: Door, directory, model: str, pairs: int = ASKED):
    """What has been seen once the gateway has followed and so many have been asked."""
    rollout = door.follow(model, state.start(directory, 2))
    for number in range(ASKED):
        reply = door.predict(model, number)
        assert (reply.status_code, reply.headers["X-Sluice-Version"]) == (200, "1")
    return eventually(
        lambda: (found := read_evidence(directory, rollout.id)).pairs == pairs and found
    )


def test_equal_versions_answer_the_same(door: Door) -> None:
    before = door.metrics()
    evidence = _shadowed(door, door.fresh("same"), "same")
    assert (evidence.changed, evidence.changes, evidence.dropped) == (0, {}, 0)
    assert evidence.shadow_live.requests == evidence.shadow_next.requests == ASKED
    assert evidence.stable.requests == ASKED
    assert evidence.timed >= 1
    same = 'sluice_shadow_requests_total{model="same",outcome="same"}'
    assert door.metrics()[same] - before.get(same, 0) == ASKED


def test_what_is_answered_otherwise_is_counted_and_kept(door: Door) -> None:
    directory, before = door.fresh("moved"), door.metrics()
    evidence = _shadowed(door, directory, "moved")
    assert (evidence.changed, evidence.changes) == (ASKED, {"value": ASKED})
    after = door.metrics()
    for series in (
        'sluice_shadow_changes_total{kind="value",model="moved"}',
        'sluice_shadow_requests_total{model="moved",outcome="changed"}',
    ):
        assert after[series] - before.get(series, 0) == ASKED

    def are_kept() -> bool:
        found = [*Captures(door.samples)] if any(door.samples.iterdir()) else []
        return sum(each.logged.model == ("moved", 1, None) for each in found) >= ASKED

    eventually(are_kept)
    page = directory.parent / "report.html"
    words = [f"--from={door.grpc}/1", f"--to={door.grpc}/2", "--model=moved"]
    result = CliRunner().invoke(main, ["replay", str(door.samples), *words, f"--report={page}"])
    assert result.exit_code == 1, result.output
    assert re.search(r"^value +\d+ +100.00%", result.output, re.MULTILINE)
    assert "a value is off by" in page.read_text()


def _kinds_kept(door: Door, model: str) -> Counter[str]:
    """Samples of a model's requests, by what it was asked by."""
    found = Captures(door.samples) if any(door.samples.iterdir()) else ()
    return Counter(each.logged.kind for each in found if each.logged.model == (model, 1, None))


def _seen_by(door: Door, directory: Path, model: str, doors: Sequence[Ask]) -> Evidence:
    """What has been seen once each of the doors has been gone through, and all have been asked."""
    rollout = door.follow(model, state.start(directory, 2))
    for ask in doors:
        assert ask(door, "ann", model) == (X_0[1], 1)
    return eventually(
        lambda: (found := read_evidence(directory, rollout.id)).pairs == len(doors) and found
    )


def test_what_comes_by_any_door_is_asked_of_the_next_version_too(door: Door) -> None:
    """And compared as `sluice replay` does: a class that is still the best has another score."""
    directory, before = door.fresh("moved"), _kinds_kept(door, "moved")
    seen = _seen_by(door, directory, "moved", DOORS)
    assert (seen.changed, seen.dropped, seen.stable.requests) == (9, 0, 9)
    assert seen.changes == {"value": 7, "score": 2}
    assert (seen.shadow_live.requests, seen.shadow_next.requests) == (9, 9)
    kept = {PREDICT_LOG: 4, REGRESS_LOG: 2, CLASSIFY_LOG: 2, MULTI_INFERENCE_LOG: 1}
    eventually(lambda: _kinds_kept(door, "moved") - before == kept)


def test_equal_versions_classify_alike(door: Door) -> None:
    """Each call has as many rows as live's had, and so its time says something."""
    seen = _seen_by(door, door.fresh("same"), "same", OF_EXAMPLES)
    assert (seen.changes, seen.timed, seen.shadow_next.errors) == ({}, 5, 0)


def test_a_next_version_that_cannot_classify_fails(door: Door) -> None:
    seen = _seen_by(door, door.fresh("broken"), "broken", OF_EXAMPLES)
    assert (seen.changes, seen.shadow_next.errors) == ({"error": 5}, 5)


def test_errors_of_the_next_version_are_changes(door: Door) -> None:
    evidence = _shadowed(door, door.fresh("broken"), "broken")
    assert evidence.changes == {"error": ASKED}
    assert (evidence.shadow_next.errors, evidence.shadow_live.errors) == (ASKED, 0)


def test_a_version_that_is_not_there_is_nobodys_fault(door: Door) -> None:
    evidence = _shadowed(door, door.fresh("absent"), "absent", pairs=0)
    assert evidence.shadow_next.errors == 0
    away = 'sluice_shadow_requests_total{model="absent",outcome="away"}'
    eventually(lambda: door.metrics().get(away, 0) >= ASKED)


def test_what_is_paused_is_asked_no_more(door: Door) -> None:
    directory = door.fresh("same")
    state.start(directory, 2)
    rollout = door.follow("same", state.pause(directory))
    for _ in range(5):
        assert door.predict("same").status_code == 200
    evidence = eventually(
        lambda: (found := read_evidence(directory, rollout.id)).stable.requests == 5 and found
    )
    assert (evidence.pairs, evidence.dropped) == (0, 0)

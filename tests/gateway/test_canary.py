"""Canaries in a real gateway: whose turn it is, through every door, and that nobody pays for it."""

import pytest
import requests

from service.rollout import state
from service.rollout.evidence import read_evidence
from service.rollout.state import goes_to_next
from sluice.wire.rollout_files import ROLLOUT_FILE
from tests.gateway.doors import DOORS, X_0
from tests.gateway.rollouts import Door, eventually

USERS = [f"user-{number}" for number in range(12)]


def test_every_door_leads_each_user_to_the_same_version(door: Door) -> None:
    directory = door.fresh("moved")
    state.start(directory, 2, by="header:X-User", shadow_share=0)
    rollout = door.follow("moved", state.canary(directory, 0.5))
    expected = {user: 2 if goes_to_next(rollout, "moved", user) else 1 for user in USERS}
    assert {*expected.values()} == {1, 2}
    for ask in DOORS:
        found = {user: ask(door, user) for user in USERS}
        assert found == {user: (X_0[version], version) for user, version in expected.items()}, ask
    for path in ("/v1/models/moved/metadata", "/v1/models/moved"):
        assert requests.get(door.url + path, timeout=30).ok
    told = requests.get(f"{door.url}/v1/models/moved/metadata", timeout=30).json()
    assert told["model_spec"]["version"] == "1"
    assert (
        requests.post(
            f"{door.url}/v1/models/moved/labels/none:predict", json={"instances": [0]}, timeout=30
        ).status_code
        == 400
    )  # a label is the model server's to know
    evidence = eventually(
        lambda: (
            (found := read_evidence(directory, rollout.id)).canary.requests + found.stable.requests
            == len(DOORS) * len(USERS)
            and found
        )
    )
    chosen = sum(version == 2 for version in expected.values())
    assert evidence.canary.requests == len(DOORS) * chosen
    assert sum(evidence.stable.seconds) == evidence.stable.requests
    assert (evidence.canary.errors, evidence.stable.errors) == (0, 0)


def test_a_header_pins_a_version(door: Door) -> None:
    directory = door.fresh("moved")

    def version(pinned: str) -> str:
        return door.predict("moved", X_Sluice_Version=pinned).headers["X-Sluice-Version"]

    assert [version(pinned) for pinned in ("1", "2", "live")] == ["1", "2", "2"]
    refused = door.predict("moved", X_Sluice_Version="next")
    assert (refused.status_code, "is being rolled out" in refused.text) == (400, True)
    state.start(directory, 2, shadow_share=0)
    door.follow("moved", state.canary(directory, 0))
    assert [version(pinned) for pinned in ("1", "2", "live", "next")] == ["1", "2", "1", "2"]
    door.follow("moved", state.promote(directory))
    assert [version(pinned) for pinned in ("1", "live", "next", "")] == ["1", "2", "2", "2"]
    assert door.predict("moved", X_Sluice_Version="7").status_code == 404
    for bad in ("two", "-", "2.0"):
        refused = door.predict("moved", X_Sluice_Version=bad)
        assert (refused.status_code, f"got {bad}" in refused.text) == (400, True)
    refused = requests.post(
        f"{door.url}/v1/models/moved/versions/1:predict",
        json={"instances": [0]},
        headers={"X-Sluice-Version": "2"},
        timeout=30,
    )
    assert (refused.status_code, "names 1: leave one out" in refused.text) == (400, True)
    asked = requests.options(
        f"{door.url}/v1/models/moved:predict",
        headers={"Origin": "http://a.b", "Access-Control-Request-Method": "POST"},
        timeout=30,
    )
    assert "X-Sluice-Version" in asked.headers["Access-Control-Allow-Headers"]


@pytest.mark.parametrize(("model", "errors"), [("broken", 10), ("absent", 0)])
def test_nobody_pays_for_a_canary_that_fails(door: Door, model: str, errors: int) -> None:
    """One that is not loaded is nobody's fault, and counts for nothing."""
    directory, before = door.fresh(model), door.metrics()
    state.start(directory, 2, shadow_share=0)
    rollout = door.follow(model, state.canary(directory, 1))

    def counted(series: str) -> float:
        return door.metrics().get(series, 0) - before.get(series, 0)

    for _ in range(10):
        reply = door.predict(model, 1.0)
        assert (reply.status_code, reply.json()["predictions"]) == (200, [2.5])
        assert reply.headers["X-Sluice-Version"] == "1"
    refused = door.predict(model, "one")  # type: ignore[arg-type]
    assert refused.status_code == 400  # what live refuses too is the request's own fault
    away = f'sluice_shadow_requests_total{{model="{model}",outcome="away"}}'
    eventually(lambda: errors or counted(away) == 10)
    eventually(lambda: read_evidence(directory, rollout.id).canary.errors == errors)
    canary = read_evidence(directory, rollout.id).canary
    assert (canary.requests, sum(canary.seconds)) == (errors, 0)
    failed = f'sluice_canary_errors_total{{model="{model}"}}'
    assert counted(failed) == errors


def test_for_live_that_is_not_loaded_the_newest_answers_at_the_beginning_alone(door: Door) -> None:
    """Later it is on trial, or was rolled back."""
    directory = door.fresh("absent")  # whose version 2 is not loaded
    door.follow("absent", state.start(directory, 1, live=2))
    reply = door.predict("absent")
    assert (reply.status_code, reply.headers["X-Sluice-Version"]) == (200, "1")
    for move in (lambda model: state.canary(model, 0), state.pause, state.resume, state.abort):
        door.follow("absent", move(directory))
        assert door.predict("absent").status_code == 404
    state.end(directory)
    eventually(lambda: door.predict("absent").status_code == 200)


def test_kept_answers_are_those_of_the_version_whose_turn_it_is(door: Door) -> None:
    directory = door.fresh("kept")
    state.start(directory, 2, by="header:x-user", shadow_share=0)
    rollout = door.follow("kept", state.canary(directory, 0.5))
    users = {goes_to_next(rollout, "kept", user): user for user in USERS}

    def ask(**headers: str) -> tuple[float, str, str]:
        reply = door.predict("kept", 0.0, **headers)
        told = reply.headers["Cache-Status"].removeprefix("sluice; ")
        return reply.json()["predictions"][0], reply.headers["X-Sluice-Version"], told

    for told in ("fwd=miss", "hit"):
        assert ask(X_User=users[False]) == (2.0, "1", told)
        assert ask(X_User=users[True]) == (3.0, "2", told)
    for pinned, version in {"1": 1, "live": 1, "2": 2, "next": 2}.items():
        assert ask(X_Sluice_Version=pinned) == (X_0[version], str(version), "hit")
    own = ask(X_User=users[True], Cache_Control="no-store")
    assert own == (3.0, "2", "fwd=request")
    evidence = eventually(
        lambda: (found := read_evidence(directory, rollout.id)).canary.requests == 2 and found
    )  # what the version has answered itself
    assert evidence.stable.requests == 1
    door.follow("kept", state.promote(directory))
    assert ask(X_User=users[False]) == (3.0, "2", "hit")


def test_requests_without_the_header_are_not_the_canarys(door: Door) -> None:
    directory = door.fresh("moved")
    state.start(directory, 2, by="header:x-user", shadow_share=0)
    door.follow("moved", state.canary(directory, 0.99))
    assert {door.predict("moved").headers["X-Sluice-Version"] for _ in range(10)} == {"1"}
    assert door.predict("moved", X_User="user-1").headers["X-Sluice-Version"] == "2"


def test_a_file_that_cannot_be_used_changes_nothing_and_is_told(door: Door) -> None:
    directory = door.fresh("moved")
    state.start(directory, 2, shadow_share=0)
    rollout = door.follow("moved", state.canary(directory, 1))
    good = (directory / ROLLOUT_FILE).read_text()
    for bad in ("{", good.replace('"next": 2', '"next": 9')):
        (directory / ROLLOUT_FILE).write_text(bad)
        eventually(lambda: door.metrics()["sluice_rollout_problem"] == 1)
        door.follow("moved", rollout)
        assert door.predict("moved").headers["X-Sluice-Version"] == "2"
        (directory / ROLLOUT_FILE).write_text(good)
        eventually(lambda: door.metrics()["sluice_rollout_problem"] == 0)
    door.follow("moved", state.abort(directory))
    assert door.predict("moved").headers["X-Sluice-Version"] == "1"
    state.end(directory)
    eventually(lambda: door.predict("moved").headers["X-Sluice-Version"] == "2")

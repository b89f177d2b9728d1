"""A rollout under load: what shadows and canaries cost those whom the live version answers."""

import asyncio
import re
import time
from pathlib import Path

import psutil
import pytest
import requests

from service.rollout import state
from service.rollout.evidence import Evidence, evidence_directory, read_evidence
from tests.system.load import Outcome, Question, failed, open_loop, quantile, stood_still, told

ROW_S = 0.008
PEAK = 1 / ROW_S  # rows a second, in calls so large that nothing else counts
CALM, OVERLOAD = 0.4 * PEAK, 2 * PEAK
SHARE = 0.1
QUESTION = b'{"instances":[1.5]}', b'{"predictions":[3.0]}'


@pytest.fixture
def model(tmp_path: Path) -> Path:
    for number in "12":
        (tmp_path / "toy" / number).mkdir(parents=True)
        (tmp_path / "toy" / number / "saved_model.pb").write_bytes(b"")
    return tmp_path / "toy"


@pytest.fixture
def front(launch_toy, launch_front, model: Path):
    """A gateway that follows the model's rollouts, before one server that answers row by row."""
    toy = launch_toy("--call-s=0.005", f"--row-s={ROW_S}")
    return launch_front(
        toy.address, workers=1, model_repository=model.parent, shadow_room=0.02, access_log="off"
    )


def test_shadows_go_first_and_a_worker_that_is_killed_loses_nothing_seen(
    front, model: Path
) -> None:
    rollout = _rolled_out(front, model)
    outcomes = _load(front, CALM, 2)
    assert not failed(outcomes) or stood_still(outcomes), told(outcomes)
    _eventually(lambda: read_evidence(model, rollout.id).pairs)  # shadows wait for their turn
    calm = _seen(model, rollout, sum(each.right for each in outcomes))
    assert calm.changed == 0
    outcomes = _load(front, OVERLOAD, 3)
    answered = sum(each.right for each in outcomes)
    overload = _seen(model, rollout, calm.canary.requests + calm.stable.requests + answered)
    assert {each.status for each in failed(outcomes)} <= {503}
    assert overload.dropped - calm.dropped > overload.pairs - calm.pairs
    assert (overload.canary.errors, overload.stable.errors) == (0, 0)
    assert 0 < overload.canary.requests < overload.stable.requests / 2

    _kill_the_worker(front)
    _eventually(lambda: not failed(_load(front, 20, 1)))  # while it begins, nobody answers
    _eventually(lambda: read_evidence(model, rollout.id).stable.requests > overload.stable.requests)
    assert len([*evidence_directory(model, rollout.id).glob("*.json")]) == 2
    state.promote(model)
    url = f"{front.url}/v1/models/toy:predict"
    _eventually(
        lambda: (
            requests.post(url, json={"instances": [1.5]}, timeout=60).headers.get(
                "X-Sluice-Version"
            )
            == "2"
        )
    )


@pytest.mark.load
def test_they_cost_the_others_a_tenth_of_the_median_at_the_most(front, model: Path) -> None:
    medians: dict[tuple[str, float], float] = {}
    for stage in ("none", "canary"):
        if stage == "canary":
            rollout = _rolled_out(front, model)
        for rate in (CALM, OVERLOAD):
            outcomes = _load(front, rate, 60)
            assert rate == OVERLOAD or not failed(outcomes)
            answered = [each.seconds for each in outcomes if each.right]
            medians[stage, rate] = quantile(answered, 0.5)
            print(f"{stage}, {rate:.0f} a second: {told(outcomes)}")
            time.sleep(5)  # until nothing waits any more
    seen = read_evidence(model, rollout.id)
    print(f"{seen.pairs} pairs, {seen.dropped} dropped, {seen.canary.requests} by the canary")
    for rate in (CALM, OVERLOAD):
        assert medians["canary", rate] < 1.1 * medians["none", rate]


def _rolled_out(front, model: Path):
    """A rollout that the gateway follows: everything is shadowed, and SHARE is the canary's."""
    state.start(model, 2)
    rollout = state.canary(model, SHARE)
    url = f"http://127.0.0.1:{front.admin_port}/metrics"
    series = re.compile(rf'^sluice_rollout{{.*"canary".*}} {SHARE}$', re.MULTILINE)
    _eventually(lambda: series.search(requests.get(url, timeout=60).text))
    return rollout


def _kill_the_worker(front) -> None:
    [worker] = psutil.Process(front.process.pid).children()
    worker.kill()
    worker.wait()


def _load(front, rate: float, seconds: int) -> list[Outcome]:
    question = Question(front.http_port, "/v1/models/toy:predict", *QUESTION)
    return asyncio.run(open_loop(question, rate, seconds, seed=7))


def _seen(model: Path, rollout, answered: int) -> Evidence:
    """The evidence once it tells of so many requests."""

    def all_of_them() -> Evidence | None:
        found = read_evidence(model, rollout.id)
        return found if found.canary.requests + found.stable.requests == answered else None

    return _eventually(all_of_them)


def _eventually(condition):
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)
    return found

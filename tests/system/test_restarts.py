"""Model servers that die, return, load and shut down, seen by those who go on asking."""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator

import pytest
import requests

from tests.gateway.rollouts import eventually
from tests.processes import RUNNING, ModelServerProcess, free_port
from tests.system.load import Outcome, Question, during, failed, told

WAIT_S = 20  # a machine that starts model servers meanwhile is no reason to refuse anybody
HELD = 20  # requests that a killed server may have held, which nobody asks again elsewhere

rates = pytest.mark.parametrize(
    ("rate", "rounds"),
    [
        pytest.param(50, 1, id="once"),
        pytest.param(200, 3, id="thrice", marks=pytest.mark.load),
    ],
)


class Twin:
    """A model server that can be started again at the same address."""

    def __init__(self, launch: Callable[..., ModelServerProcess], flags: list[str]) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._launch, self._flags = launch, [*flags, f"--port={self.address.rpartition(':')[2]}"]
        self.process = self._launch(*self._flags, ready=False)

    def wait(self) -> None:
        self.process.wait_for(RUNNING.pattern)

    def start(self) -> None:
        self.process = self._launch(*self._flags)

    def kill(self) -> None:
        self.process.process.kill()
        self.process.wait()

    def restart(self) -> None:
        assert self.process.terminate() == 0
        self.start()


@pytest.fixture(scope="module")
def flags(conformance_models) -> list[str]:
    return [
        f"--model_config_file={conformance_models}/models.config",
        "--allow_version_labels_for_unavailable_models=true",
    ]


@pytest.fixture(scope="module")
def start_twin(launch_modelserver, flags) -> Iterator[Callable[[], Twin]]:
    """`start_twin()` -> a Twin that is starting; killed with the module."""
    started = []

    def start() -> Twin:
        started.append(Twin(launch_modelserver, flags))
        return started[-1]

    yield start
    for twin in started:
        if twin.process.process.poll() is None:
            twin.kill()


@pytest.fixture(scope="module")
def twins(start_twin) -> list[Twin]:
    pair = [start_twin(), start_twin()]
    for twin in pair:
        twin.wait()
    return pair


def question(gateway, model: str = "affine") -> Question:
    return Question(
        gateway.http_port,
        f"/v1/models/{model}:predict",
        b'{"instances":[1.0]}',
        {"affine": b'{"predictions":[3.5]}', "toy": b'{"predictions":[2.0]}'}[model],
    )


def asked_during(deed: Callable[[], None], gateway, rate: float) -> list[Outcome]:
    outcomes = asyncio.run(during(deed, question(gateway), rate, seed=13))
    print(told(outcomes), {each.why for each in failed(outcomes)})
    return outcomes


@rates
def test_a_killed_server_costs_no_more_than_what_it_held(twins, launch_front, rate, rounds):
    gateway = launch_front(",".join(twin.address for twin in twins), max_wait_s=WAIT_S)

    def kill_and_start_again() -> None:
        for _ in range(rounds):
            time.sleep(1)
            twins[0].kill()
            time.sleep(1)
            twins[0].start()
            time.sleep(2)

    lost = failed(asked_during(kill_and_start_again, gateway, rate))
    assert {each.status for each in lost} <= {503}
    assert all(each.retry_after for each in lost)
    assert len(lost) <= HELD * rounds


@rates
def test_a_rolling_restart_fails_nobody(twins, launch_front, rate, rounds):
    gateway = launch_front(",".join(twin.address for twin in twins), max_wait_s=WAIT_S)

    def roll() -> None:
        for _ in range(rounds):
            for twin in twins:
                time.sleep(1)
                twin.restart()
        time.sleep(1)

    assert not failed(asked_during(roll, gateway, rate))


def test_a_lone_server_that_starts_and_stops_is_unavailable_and_not_unknown(
    start_twin, launch_front
):
    twin = start_twin()
    gateway = launch_front(twin.address, max_wait_s=WAIT_S)

    def live() -> None:
        twin.wait()
        asked = f"{gateway.url}/v1/models/affine:predict"
        eventually(lambda: requests.post(asked, json={"instances": [1.0]}, timeout=60).ok)
        time.sleep(2)
        assert twin.process.terminate() == 0
        time.sleep(1)

    outcomes = asked_during(live, gateway, 20)
    assert {each.status for each in outcomes} == {200, 503}
    assert all(each.retry_after for each in outcomes if each.status == 503)
    first, last = (
        next(i for i, each in enumerate(some) if each.right) for some in (outcomes, outcomes[::-1])
    )
    assert first and last, "unavailable before and after"


def test_a_model_that_loads_is_not_unknown(launch_toy, launch_front):
    toy = launch_toy("--load-s=inf")  # until it is told
    gateway = launch_front(toy.address, max_wait_s=WAIT_S)

    def load() -> None:
        time.sleep(3)
        toy.process.send_signal(signal.SIGUSR1)
        time.sleep(3)

    outcomes = asyncio.run(during(load, question(gateway, "toy"), rate=20, seed=13))
    assert {each.status for each in outcomes} == {200, 503}
    assert all("loading" in each.why for each in outcomes if each.status == 503)
    assert outcomes[-1].right


def test_a_proxy_in_the_environment_is_for_the_world_outside(launch_toy, launch_front, monkeypatch):
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    gateway = launch_front(launch_toy().address, max_wait_s=WAIT_S)
    outcomes = asyncio.run(during(lambda: time.sleep(1), question(gateway, "toy"), 20, seed=13))
    assert outcomes and not failed(outcomes)

"""What answers say of novelty is counted: a row each, by model and version."""

import asyncio

import numpy as np
import pytest

from service.gateway.access_log import AccessLog
from service.gateway.caller import Caller
from service.gateway.exchange import Exchange
from service.gateway.telemetry import Telemetry
from sluice.wire.novelty import MOST


def exchange(model: str = "digits") -> Exchange:
    return Exchange("tfs", "predict", model, "200", "POST", "/", "", "", 10, 10, 0.01)


def caller(novelty, version: int = 1) -> Caller:
    return Caller(0.0, signature="encoded", version=version, rows=1, joined=1, novelty=novelty)


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry(AccessLog("off"))


def counted(telemetry: Telemetry) -> dict[str, float]:
    lines = telemetry.exposition()[0].decode().splitlines()
    found = [line.rpartition(" ") for line in lines if line.startswith("sluice_novelty")]
    return {name: float(value) for name, _, value in found if "_created" not in name}


def test_every_row_counts_once_whatever_requests_they_came_in(telemetry):
    callers = [
        caller(np.float32([0.5, 1.0, 1.001])),
        caller(np.float32([4.0])),
        caller(np.float32([9.0]), version=2),
    ]

    async def observe() -> None:
        for each in callers:
            telemetry.observe(exchange(), each)

    asyncio.run(observe())
    found = counted(telemetry)
    assert [each.novelty for each in callers] == [None] * 3  # which may lie in a large reply
    assert found['sluice_novelty_count{model="digits",version="1"}'] == 4
    assert found['sluice_novelty_bucket{le="1.0",model="digits",version="1"}'] == 2
    assert found['sluice_novelty_sum{model="digits",version="1"}'] == pytest.approx(6.501)
    assert found['sluice_novelty_count{model="digits",version="2"}'] == 1


def test_a_row_that_is_no_number_is_unlike_and_spoils_no_sum(telemetry):
    telemetry.observe(exchange(), caller(np.float32([np.nan, np.inf])))
    found = counted(telemetry)
    assert found['sluice_novelty_bucket{le="10.0",model="digits",version="1"}'] == 0
    assert found['sluice_novelty_sum{model="digits",version="1"}'] == 2 * MOST


@pytest.mark.parametrize(
    "novelty", [None, np.array([b"a"], object), np.zeros((2, 3), np.float32), np.array([1])]
)
def test_what_another_models_output_of_that_name_is_makes_no_metric(telemetry, novelty):
    telemetry.observe(exchange(), caller(novelty))
    assert counted(telemetry) == {}

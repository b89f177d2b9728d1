"""More requests than the model server can take: what it gives must not sink."""

import asyncio
import time
from dataclasses import replace
from typing import NamedTuple

import psutil
import pytest

from tests.system.load import (
    Outcome,
    Question,
    closed_loop,
    failed,
    open_loop,
    probe,
    quantile,
    stood_still,
    told,
)

WARM_S = 1
MANY_CLIENTS = 64  # as many as keep a model server with joined calls busy


class Shape(NamedTuple):
    """How hard, for how long, and what must hold."""

    peak_s: float  # of measuring the peak
    seconds: int  # of the overload
    window_s: int
    goodput: float  # of the peak, in each window
    late_s: float  # after its deadline, an accepted one
    refusal_s: float  # at the median
    probe_s: float
    memory: float  # of a worker, after and before
    patience_s: float  # with a machine that itself is not calm after it


SHORT = Shape(3, 6, 3, 0.5, 2.0, 0.25, 3.0, 1.5, 60.0)
LONG = Shape(10, 60, 15, 0.9, 0.0, 0.005, 0.1, 1.1, 0.0)


@pytest.mark.parametrize(
    ("shape", "times", "deadline_s"),
    [
        pytest.param(SHORT, 3.0, 3.0, id="short"),
        *(
            pytest.param(LONG, *each, id="-".join(map(str, each)), marks=pytest.mark.load)
            for each in ((1.5, 2.0), (3.0, 2.0), (3.0, 0.5))
        ),
    ],
)
def test_goodput_stays_at_its_peak(launch_toy, launch_front, shape, times, deadline_s):
    gateway = launch_front(launch_toy("--call-s=0.005", "--row-s=0.008").address)
    asyncio.run(_overload(gateway, shape, times, deadline_s))


async def _overload(gateway, shape: Shape, times: float, deadline_s: float) -> None:
    patient = Question(
        gateway.http_port,
        "/v1/models/toy:predict",
        b'{"instances":[1.5]}',
        b'{"predictions":[3.0]}',
    )
    question = replace(patient, headers=f"X-Request-Timeout-Ms: {deadline_s * 1000:.0f}\r\n")
    busy = await closed_loop(patient, MANY_CLIENTS, WARM_S + shape.peak_s)
    peak = _goodput(busy, WARM_S, shape.peak_s)
    before = _memory(gateway)
    outcomes, probes = await asyncio.gather(
        open_loop(question, times * peak, shape.seconds, seed=13),
        probe(Question(gateway.admin_port, "/healthz"), int(shape.seconds)),
    )
    after = _memory(gateway)
    calm = await _calm(question, 0.5 * peak, shape.patience_s)

    windows = [
        _goodput(outcomes, start, shape.window_s)
        for start in range(0, shape.seconds, shape.window_s)
    ]
    refused = [each for each in outcomes if each.status == 503]
    refusal_s = quantile([each.seconds for each in refused], 0.5)
    accepted_s = quantile([each.seconds for each in outcomes if each.status != 503], 0.99)
    print(
        f"peak {peak:.0f}/s, then {[round(each / peak, 2) for each in windows]} of it; "
        f"{told(outcomes)}; accepted p99 {accepted_s:.2f} s; refused p50 {refusal_s * 1e3:.1f} ms; "
        f"memory {before / 2**20:.0f} -> {after / 2**20:.0f} MB\n"
        f"probes: {told(probes)}\nthen: {told(calm)}"
    )
    assert min(windows) > shape.goodput * peak
    assert accepted_s < deadline_s + shape.late_s
    assert refused
    assert all(each.retry_after for each in refused)
    assert refusal_s < shape.refusal_s
    assert not failed(probes)
    assert max(each.seconds for each in probes) < shape.probe_s
    assert after < shape.memory * before
    assert not failed(calm)


async def _calm(question: Question, rate: float, patience_s: float) -> list[Outcome]:
    """What becomes of few requests, two seconds later. Where the machine stood still meanwhile, and
    somebody was refused for it, it is looked at again."""
    deadline = time.monotonic() + patience_s
    while True:
        await asyncio.sleep(2)
        calm = await open_loop(question, rate, 2, seed=14)
        if not failed(calm) or not stood_still(calm) or time.monotonic() > deadline:
            return calm


def _goodput(outcomes: list[Outcome], start: float, seconds: float) -> float:
    """Right answers a second, of those that came within so many seconds from `start` on."""
    came = [each.at + each.seconds - start for each in outcomes if each.right]
    return sum(0 <= at < seconds for at in came) / seconds


def _memory(gateway) -> int:
    """Bytes that the workers hold."""
    workers = psutil.Process(gateway.process.pid).children()
    return sum(worker.memory_info().rss for worker in workers)

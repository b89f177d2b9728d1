"""Connections that hold on to the gateway, and good requests meanwhile."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system import crowd
from tests.system.load import Outcome, Question, failed, open_loop, probe, quantile, told

ROOT = Path(__file__).parents[2]
HEAD_TIMEOUT_S = BODY_TIMEOUT_S = 3.0
SETTLE_S = 5.0  # after which a body's rate is looked at
ALLOWED_S = {
    "one byte": HEAD_TIMEOUT_S,
    "silent": HEAD_TIMEOUT_S,
    "slow heads": HEAD_TIMEOUT_S,
    "slow bodies": SETTLE_S,
    "bodies that stop": BODY_TIMEOUT_S,
}


@pytest.mark.parametrize(
    ("many", "rate", "seconds", "p99_s", "health_s", "grace_s"),
    [
        pytest.param(100, 30, 8, 3.0, 3.0, 10.0, id="hundreds"),
        pytest.param(1000, 60, 60, 0.5, 0.1, 2.0, id="thousands", marks=pytest.mark.load),
    ],
)
def test_those_who_hold_on_keep_nobody_else_out(
    launch_toy, launch_front, many, rate, seconds, p99_s, health_s, grace_s
):
    gateway = launch_front(
        launch_toy().address,
        head_timeout_s=HEAD_TIMEOUT_S,
        body_timeout_s=BODY_TIMEOUT_S,
        max_wait_s=20,
    )
    holding = subprocess.Popen(
        [sys.executable, "-m", crowd.__name__, str(gateway.http_port), str(many), str(seconds)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    outcomes, health = asyncio.run(_good_ones(gateway, rate, seconds))
    stays = json.loads(holding.communicate(timeout=60)[0])
    print(told(outcomes), "; health:", told(health))
    for name, kind in crowd.kinds(many).items():
        longest = max(stays[name])
        print(f"{name}: {len(stays[name])} closed, the last after {longest:.1f} s")
        assert len(stays[name]) >= kind.count
        assert longest < ALLOWED_S[name] + grace_s, name
    assert not failed(outcomes)
    assert quantile([each.seconds for each in outcomes], 0.99) < p99_s
    assert not failed(health)
    assert max(each.seconds for each in health) < health_s


async def _good_ones(gateway, rate, seconds) -> tuple[list[Outcome], list[Outcome]]:
    good = Question(
        gateway.http_port,
        "/v1/models/toy:predict",
        b'{"instances":[1.5]}',
        b'{"predictions":[3.0]}',
    )
    outcomes, public, admin = await asyncio.gather(
        open_loop(good, rate, seconds, seed=13),
        *(
            probe(Question(port, "/healthz"), int(seconds))
            for port in (gateway.http_port, gateway.admin_port)
        ),
    )
    return outcomes, public + admin

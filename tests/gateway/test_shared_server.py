"""Gateways before one model server that is asked for more than it can, or that stand still
themselves: the real lines, limits and deadlines, in simulated time, so that a minute takes no more
than its requests do."""

import asyncio
import random
import selectors
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest

from service.gateway import limiter
from service.gateway.answer import Answer
from service.gateway.caller import Caller
from service.gateway.deadlines import Deadlines
from service.gateway.errors import Busy, DeadlineExceeded
from service.gateway.joining import Joining
from service.gateway.traffic import kind_of
from sluice.wire.model_ref import ModelRef
from tests.gateway.fake_servers import FakeServers

ROW = {"x": np.zeros(1, np.float32)}
KIND = kind_of(ModelRef("m"), "s", (), ROW)
MOST_ROWS = 64


class Clock(selectors.DefaultSelector):
    """Of an event loop whose time passes only while it has nothing to do, and then at once."""

    def __init__(self):
        super().__init__()
        self.now = 0.0

    def select(self, timeout=None):
        assert timeout is not None, "everybody waits for nothing"
        self.now += max(timeout, 0)
        return super().select(0)


@pytest.fixture
def simulated(monkeypatch):
    """`simulated(main)` -> what the coroutine returns, in simulated time."""

    def run(main):
        clock = Clock()
        monkeypatch.setattr(time, "monotonic", lambda: clock.now)
        monkeypatch.setattr(limiter.random, "uniform", random.Random(1).uniform)
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(clock)) as runner:
            return runner.run(main)

    return run


def stand_still(seconds: float) -> None:
    """The process with the running loop is stopped for so long."""
    asyncio.get_running_loop()._selector.now += seconds


class Speed(NamedTuple):
    """Of a model server: seconds a call and a row, and the calls that it works on at once."""

    call_s: float
    row_s: float
    cores: int = 1

    @property
    def capacity(self):
        """Rows a second, in full calls."""
        return self.cores * MOST_ROWS / (self.call_s + MOST_ROWS * self.row_s)


class ModelServer:
    """It works on every call that it was sent to its end, whoever waits for it, as TensorFlow
    Serving does. `slowness` of a moment: how many times longer all takes."""

    def __init__(self, speed: Speed, slowness: Callable[[float], float] = lambda _: 1.0) -> None:
        self._speed, self._slowness = speed, slowness
        self._turns = asyncio.Semaphore(speed.cores)

    async def answer(self, _server, call):
        work = asyncio.get_running_loop().create_task(self._work(call.rows))
        await asyncio.shield(work)
        return Answer({"y": np.zeros(call.rows, np.float32)}, 1)

    async def _work(self, rows):
        async with self._turns:
            seconds = self._speed.call_s + rows * self._speed.row_s
            await asyncio.sleep(seconds * self._slowness(time.monotonic()))


class Gateway:
    def __init__(self, server: ModelServer, joins: bool = True) -> None:
        self.servers = FakeServers()
        self.joining = Joining(
            self.servers,
            server.answer,
            max_rows=MOST_ROWS,
            max_wait_s=1.0,
            joins=lambda _: joins,
        )
        self._deadlines = Deadlines()

    async def ask(self, seconds: float) -> str:
        caller = Caller.within(seconds)
        try:
            self.joining.check_wait("m", seconds)
            with self._deadlines.within(caller):
                await self.joining.ask(KIND, ROW, 1, caller)
        except Busy:
            return "refused"
        except DeadlineExceeded:
            return "late"
        return "answered"


@dataclass
class Crowd:
    """Strangers who ask `rate` times a second on the average, each for an answer within so long."""

    gateways: list[Gateway]
    rate: float
    deadline_s: float
    seed: int = 13

    async def ask(self, seconds: int) -> list[tuple[float, str]]:
        """What became of each request, and when."""
        draw, outcomes = random.Random(self.seed), []

        async def one():
            outcome = await draw.choice(self.gateways).ask(self.deadline_s)
            outcomes.append((time.monotonic(), outcome))

        asked = []
        while time.monotonic() < seconds:
            asked.append(asyncio.get_running_loop().create_task(one()))
            await asyncio.sleep(draw.expovariate(self.rate))
        await asyncio.gather(*asked)
        return outcomes


async def overload(gateways, speed, times, deadline_s):
    server = ModelServer(speed)
    doors = [Gateway(server) for _ in range(gateways)]
    return await Crowd(doors, times * speed.capacity, deadline_s).ask(WINDOW_S * WINDOWS)


def rates(outcomes, kind):
    """How many a second had this outcome, in each window."""
    count = [0] * WINDOWS
    for at, outcome in outcomes:
        if outcome == kind and at < WINDOW_S * WINDOWS:
            count[int(at // WINDOW_S)] += 1
    return [each / WINDOW_S for each in count]


SERIAL = Speed(0.020, 0.032)  # rows cost what they cost, together or alone
SMALL_CALL = Speed(0.005, 0.008)
COSTLY_CALL = Speed(1.0, 0.0)  # rows cost nothing, so only full calls are worth their time
WINDOW_S, WINDOWS = 15, 5  # the first is for finding out what the model server can


@pytest.mark.parametrize(
    ("gateways", "speed", "times", "deadline_s"),
    [
        (1, SERIAL, 3.0, 4.0),
        (2, SERIAL, 3.0, 4.0),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in (
                (2, SERIAL, 1.5, 4.0),
                (2, SERIAL, 3.0, 1.0),
                (4, SERIAL, 3.0, 4.0),
            )
        ),
    ],
)
def test_what_it_delivers_does_not_sink_however_long_it_lasts(
    simulated, gateways, speed, times, deadline_s
):
    outcomes = simulated(overload(gateways, speed, times, deadline_s))
    good, late = (rates(outcomes, kind) for kind in ("answered", "late"))
    assert min(good[1:]) > 0.8 * speed.capacity, (good, late)


@pytest.mark.parametrize(("gateways", "most_late"), [(1, 0.01), (2, 0.01), (4, 0.02)])
def test_whoever_is_let_in_is_answered_in_time_from_the_first_moment_of_an_overload(
    simulated, gateways, most_late
):
    """Before it calls were smaller, and took no longer than those of others let them."""

    async def outcomes():
        server = ModelServer(SMALL_CALL)
        doors = [Gateway(server) for _ in range(gateways)]

        async def client(door):
            while time.monotonic() < WINDOW_S:
                assert await door.ask(30.0) == "answered"

        await asyncio.gather(*(client(doors[each % gateways]) for each in range(MOST_ROWS)))
        crowd = Crowd(doors, 3 * SMALL_CALL.capacity, 2.0)
        return Counter(outcome for _, outcome in await crowd.ask(WINDOW_S * WINDOWS))

    found = simulated(outcomes())
    assert found["late"] < most_late * found["answered"], found


@pytest.mark.slow
def test_calls_become_full_where_rows_cost_nothing(simulated):
    outcomes = simulated(overload(1, COSTLY_CALL, 2.0, 4.0))
    assert rates(outcomes, "answered")[-1] > 0.9 * COSTLY_CALL.capacity


def watched(speed, joins=True):
    """A gateway that knows when it stands still, and its limiter."""
    gateway = Gateway(ModelServer(speed), joins)
    gateway.servers.standstill.watch()
    return gateway, gateway.joining._of("m").limiter


def test_after_a_standstill_of_its_own_a_gateway_refuses_nobody(simulated):
    """What the model server answered meanwhile has not been read when the next requests are."""

    async def outcomes():
        gateway, limiter = watched(Speed(0.1, 0.0))

        def ask():
            return asyncio.get_running_loop().create_task(gateway.ask(30.0))

        before = [ask() for _ in range(4)]
        await asyncio.sleep(0.05)
        stand_still(3.0)
        after = [ask() for _ in range(4)]
        return await asyncio.gather(*before, *after), limiter.usual_s

    found, usual_s = simulated(outcomes())
    assert found == ["answered"] * 8
    assert usual_s == pytest.approx(0.1, abs=0.01), "nor was the model server slow"


def test_who_waits_for_a_model_server_does_not_by_a_standstill(simulated):
    """There is none that answers before it, and one after it."""

    async def outcomes():
        gateway, _ = watched(Speed(0.1, 0.0))
        found = asyncio.Event()
        gateway.servers.up, gateway.servers.until_known = [], lambda _: found.wait()

        def ask():
            return asyncio.get_running_loop().create_task(gateway.ask(30.0))

        before = ask()
        await asyncio.sleep(0.05)
        stand_still(3.0)
        after = [ask() for _ in range(4)]
        await asyncio.sleep(0.05)
        gateway.servers.change("one")
        found.set()
        return await asyncio.gather(before, *after)

    assert simulated(outcomes()) == ["answered"] * 5


def test_a_standstill_makes_no_model_server_answer_fewer_rows_a_second(simulated):
    """In a call that ends soon after it, they are not counted, nor is its time."""

    async def drains():
        gateway, limiter = watched(Speed(2.0, 0.0), joins=False)

        async def client():
            while True:
                assert await gateway.ask(60.0) == "answered"

        clients = [asyncio.get_running_loop().create_task(client()) for _ in range(4)]
        await asyncio.sleep(20.1)
        before = limiter.drain_s(100)
        stand_still(1.5)
        await asyncio.sleep(2.5)
        for each in clients:
            each.cancel()
        return before, limiter.drain_s(100)

    before, after = simulated(drains())
    assert after == pytest.approx(before, rel=0.01)


@pytest.mark.parametrize(("stands_s", "usual_s"), [(3.0, 0.0), (0.0, 2.0)])
def test_who_is_late_after_a_standstill_tells_nothing_of_the_model_server(
    simulated, stands_s, usual_s
):
    """Its answer may be there."""

    async def outcome():
        gateway, limiter = watched(Speed(10.0, 0.0))
        asked = asyncio.get_running_loop().create_task(gateway.ask(2.0))
        await asyncio.sleep(0.5)
        stand_still(stands_s)
        return await asked, limiter.usual_s

    found, known_s = simulated(outcome())
    assert found == "late"
    assert known_s == pytest.approx(usual_s, abs=0.05)

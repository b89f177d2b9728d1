"""A loop that stands still knows it: by a clock of the test's own, and held up in earnest."""

import asyncio
import time

import pytest

from service.gateway import standstill as module
from service.gateway.standstill import LATE_S, LOOK_EVERY_S, READ_S, Standstill


class Clock:
    """It stands still, whatever the machine does, until it is moved."""

    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


async def looked():
    """The loop has come to its timers, and to the look among them."""
    await asyncio.sleep(2 * LOOK_EVERY_S)


def test_it_has_ended_now_until_the_loop_has_looked_and_then_it_is_known_when(clock):
    async def check():
        standstill = Standstill()
        standstill.watch()
        assert standstill.ended(clock.now) == 0
        began, clock.now = clock.now, clock.now + 3
        for _ in range(3):
            clock.now += READ_S
            assert standstill.ended(clock.now) == clock.now
            assert standstill.spoils(began, clock.now)
        await looked()
        ended = clock.now
        assert standstill.spoils(began, clock.now + READ_S / 2)
        assert not standstill.spoils(ended, clock.now + READ_S / 2), "it began after it"
        for _ in range(8):
            clock.now += LOOK_EVERY_S
            await looked()
            assert standstill.ended(clock.now) == ended
        assert not standstill.spoils(began, clock.now), "what came meanwhile has been read"
        standstill.close()

    asyncio.run(check())


def test_a_loop_that_reads_for_long_what_came_meanwhile_takes_none_of_it_for_new(clock):
    """All in one turn: it does not come to its timers."""

    async def check():
        standstill = Standstill()
        standstill.watch()
        began, clock.now = clock.now, clock.now + 3
        await looked()
        for _ in range(100):
            clock.now += LOOK_EVERY_S / 5
            assert standstill.spoils(began, clock.now)
        standstill.close()

    asyncio.run(check())


def test_a_look_that_is_hardly_late_is_no_standstill(clock):
    async def check():
        standstill = Standstill()
        standstill.watch()
        for _ in range(5):
            clock.now += LOOK_EVERY_S + 0.9 * LATE_S
            assert standstill.ended(clock.now) == 0
            await looked()
        assert standstill.ended(clock.now) == 0
        standstill.close()

    asyncio.run(check())


def test_a_loop_that_is_held_up_stands_still():
    async def check():
        standstill = Standstill()
        standstill.watch()
        began = time.monotonic()
        time.sleep(2 * (LOOK_EVERY_S + LATE_S))
        assert standstill.spoils(began, time.monotonic())
        await looked()
        assert standstill.ended(time.monotonic()) > began + LOOK_EVERY_S + LATE_S
        standstill.close()

    asyncio.run(check())


def test_one_that_nobody_watches_for_never_was():
    assert Standstill().ended(time.monotonic()) == 0

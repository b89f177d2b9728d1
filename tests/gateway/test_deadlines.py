"""A block ends at its caller's deadline, and only there, with one timer for all that are open."""

import asyncio
import time

import pytest

from service.gateway.caller import Caller
from service.gateway.deadlines import Deadlines
from service.gateway.errors import DeadlineExceeded

LATE_S = 5.0  # what a busy machine may add


async def wait_within(deadlines, caller, seconds=60.0):
    with deadlines.within(caller):
        await asyncio.sleep(seconds)
    return "in time"


def test_each_ends_at_its_own_deadline_in_whatever_order_they_come():
    async def scenario():
        deadlines = Deadlines()
        began = time.monotonic()
        seconds = [0.3, 0.05, 60.0, 0.15]
        waiting = [
            asyncio.create_task(wait_within(deadlines, Caller.within(each))) for each in seconds
        ]
        ended = {}
        for each, task in zip(seconds, waiting, strict=True):
            task.add_done_callback(
                lambda _, each=each: ended.__setitem__(each, time.monotonic() - began)
            )
        late = await asyncio.gather(*waiting[:2], waiting[3], return_exceptions=True)
        assert [type(error) for error in late] == [DeadlineExceeded] * 3
        assert "No answer within 0.05 s" in str(late[1])
        assert ended.keys() == {0.05, 0.15, 0.3}  # in any order where one look finds two late
        assert all(each <= took < each + LATE_S for each, took in ended.items())
        assert not waiting[2].done()
        waiting[2].cancel()

    asyncio.run(scenario())


def test_what_ends_before_is_left_alone():
    async def scenario():
        deadlines, caller = Deadlines(), Caller.within(0.1)
        assert await wait_within(deadlines, caller, 0) == "in time"
        await asyncio.sleep(0.3)  # the timer comes, and finds nobody
        assert await wait_within(deadlines, Caller.within(60.0), 0) == "in time"

    asyncio.run(scenario())


def test_a_block_that_two_end_at_the_same_time_ends_once():
    async def scenario():
        with pytest.raises(DeadlineExceeded), Deadlines().within(Caller.within(60.0)) as block:
            for _ in range(2):
                block.end()
            await asyncio.sleep(60)

    asyncio.run(scenario())


def test_a_deadline_can_come_nearer_but_not_go_away():
    async def scenario():
        deadlines, caller = Deadlines(), Caller.within(60.0)
        with pytest.raises(DeadlineExceeded), deadlines.within(caller) as block:
            block.shorten(caller.deadline + 60)
            assert caller.time_left_s() <= 60
            block.shorten(caller.began + 0.05)
            await asyncio.sleep(60)

    asyncio.run(scenario())


def test_one_whose_time_is_over_already_ends_at_its_first_wait():
    async def scenario():
        with pytest.raises(DeadlineExceeded):
            await wait_within(Deadlines(), Caller.within(-1.0))

    asyncio.run(scenario())


def test_who_is_cancelled_by_others_is_not_late():
    async def scenario():
        task = asyncio.create_task(wait_within(Deadlines(), Caller.within(60.0)))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())


def test_within_another_block_both_are_over_and_the_task_goes_on():
    async def scenario():
        deadlines, caller = Deadlines(), Caller.within(0.05)
        with pytest.raises(DeadlineExceeded), deadlines.within(caller):
            await wait_within(deadlines, caller)
        await asyncio.sleep(0)  # nothing of it is left that would cancel this
        assert asyncio.current_task().cancelling() == 0

    asyncio.run(scenario())

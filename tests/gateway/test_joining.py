"""Requests that wait become one call, and each still gets its own answer: with a model server that
answers when the test says so, in a real event loop."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest

from service.gateway.answer import Answer
from service.gateway.caller import Caller
from service.gateway.errors import (
    Busy,
    DeadlineExceeded,
    ModelServerFailed,
    ModelServerOverloaded,
    ModelServerUnavailable,
    RejectedByModel,
)
from service.gateway.joining import MAX_MODELS, Joining
from service.gateway.model_server import ATTEMPTS
from service.gateway.traffic import MAX_JOINED_BYTES, kind_of
from sluice.wire.model_ref import ModelRef
from tests.gateway.fake_servers import FakeServer, FakeServers

F4 = np.float32


@dataclass(eq=False)
class Call:
    """A call that was sent; the test says what becomes of it."""

    server: FakeServer
    kind: object
    x: np.ndarray
    caller: Caller
    time_s: float
    outcome: asyncio.Future

    def answer(self, version=1):
        self.outcome.set_result(Answer({"y": self.x * 2}, version))

    def fail(self, error):
        self.outcome.set_exception(error)

    @property
    def rows(self):
        return len(self.x)


class Bench:
    """A Joining before a model server that doubles, and what it was sent."""

    def __init__(self, *servers, max_rows=64, max_wait_s=10.0, joins=lambda _: True):
        self.calls = []
        self.servers = FakeServers(*servers)
        self.joining = Joining(
            self.servers, self._send, max_rows=max_rows, max_wait_s=max_wait_s, joins=joins
        )

    async def _send(self, server, asked):
        x = np.concatenate([each["x"] for each in asked.inputs])
        outcome = asyncio.get_running_loop().create_future()
        call = Call(server, asked.kind, x, asked.caller, asked.time_s, outcome)
        self.calls.append(call)
        return await call.outcome

    def ask(self, *values, model="m", rows=True, seconds=30.0, signature="s", outputs=(), **where):
        """The task of a request for these values, which has begun to wait or to be sent."""
        x = np.array(values, where.pop("dtype", F4))
        kind = kind_of(ModelRef(model, **where), signature, outputs, {"x": x})
        caller = Caller.within(seconds)
        asked = self.joining.ask(kind, {"x": x}, len(x) if rows else None, caller)
        task = asyncio.get_running_loop().create_task(asked)
        task.caller, task.wanted = caller, x * 2
        return task

    async def drive(self, tasks):
        """Answer every call until the tasks have ended."""
        deadline = time.monotonic() + 30
        while not all(task.done() for task in tasks):
            assert time.monotonic() < deadline, "nobody is asked any more"
            for call in self.calls:
                if not call.outcome.done():
                    call.answer()
            await asyncio.sleep(0)

    def sizes(self):
        return [call.rows for call in self.calls]


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


def check(tasks):
    for task in tasks:
        np.testing.assert_array_equal(task.result().outputs["y"], task.wanted)


async def busy(bench, **kind):
    """A request that is at the model server, so that those after it wait."""
    first = bench.ask(0, **kind)
    await settle()
    assert len(bench.calls) == 1
    return first


def run(test):
    """Run a coroutine function as a test."""

    def wrapped():
        asyncio.run(asyncio.wait_for(test(), 60))

    wrapped.__name__, wrapped.__doc__ = test.__name__, test.__doc__
    return wrapped


@run
async def test_a_request_that_finds_the_line_free_goes_at_once():
    bench = Bench()
    task = bench.ask(1, 2)
    await asyncio.sleep(0)
    assert bench.sizes() == [2]
    bench.calls[0].answer(version=7)
    assert (await task).version == 7
    check([task])
    assert (task.caller.rows, task.caller.joined, task.caller.queued_s) == (2, 2, 0)


@run
async def test_those_that_wait_go_together_and_each_gets_its_own_rows():
    bench = Bench()
    first = await busy(bench)
    waiting = [bench.ask(*values) for values in ([1], [2, 3], [4], [5, 6, 7])]
    await settle()
    assert bench.sizes() == [1]
    assert bench.joining.waiting() == 4
    bench.calls[0].answer()
    await bench.drive([first, *waiting])
    assert bench.sizes() == [1, 7]
    assert bench.calls[1].x.tolist() == [1, 2, 3, 4, 5, 6, 7]
    check([first, *waiting])
    assert [task.caller.rows for task in waiting] == [1, 2, 1, 3]
    assert {task.caller.joined for task in waiting} == {7}
    assert all(task.caller.queued_s > 0 for task in waiting)
    assert bench.joining.waiting() == 0


@run
async def test_the_rows_of_a_call_are_bounded_and_the_order_is_kept():
    bench = Bench(max_rows=4)
    first = await busy(bench)
    waiting = [bench.ask(*values) for values in ([1, 2, 3], [4, 5], [6, 7], [8], [9] * 9, [10])]
    await settle()
    await bench.drive([first, *waiting])
    assert bench.sizes() == [1, 3, 4, 1, 9, 1], "more than the bound goes alone"
    check([first, *waiting])


@run
async def test_one_look_at_the_line_sends_no_more_calls_than_are_free():
    bench = Bench(max_rows=2)
    first = await busy(bench)
    waiting = [bench.ask(index) for index in range(10)]
    await settle()
    limit = bench.joining._of("m").limiter.limit
    bench.calls[0].answer()
    await settle()
    assert len(bench.calls) - 1 <= max(limit, bench.joining._of("m").limiter.limit) < 5
    await bench.drive([first, *waiting])
    check(waiting)


@run
async def test_a_call_that_nobody_waits_for_counts_while_the_model_server_is_at_it():
    bench = Bench()
    first = await busy(bench)
    await asyncio.sleep(0.2)
    await bench.drive([first])
    left = [bench.ask(1), bench.ask(2)]
    await settle()
    sent = len(bench.calls)
    for task in left:
        task.cancel()
    waiting = [bench.ask(index) for index in range(3)]
    await settle()
    assert len(bench.calls) == sent, "it works at what it was sent before"
    await bench.drive(waiting)
    check(waiting)


@run
async def test_a_call_that_is_cancelled_before_it_begins_gives_its_slot_back():
    bench = Bench()
    first = await busy(bench)
    waiting = bench.ask(1)
    await settle()
    traffic = bench.joining._of("m")
    bench.calls[0].outcome.set_result(Answer({"y": bench.calls[0].x * 2}, 1))
    while not bench.joining._running:
        await asyncio.sleep(0)
    for task in bench.joining._running:
        task.cancel()
    await settle()
    assert not traffic.in_flight
    waiting.cancel()
    await first


@run
async def test_what_a_client_that_left_had_sent_is_let_go():
    """And not only once the line moves: the call before it may take long."""
    bench = Bench()
    first = await busy(bench)
    waiting, left = bench.ask(1), bench.ask(2)
    await settle()
    left.cancel()
    await settle()
    line = bench.joining._of("m")._lines.values()
    assert [len(part.inputs) for parts in line for part in parts] == [1, 0]
    await bench.drive([first, waiting])
    check([waiting])


@run
async def test_the_bytes_of_a_call_are_bounded():
    bench = Bench()
    first = await busy(bench)
    width = MAX_JOINED_BYTES // 4 // 3
    waiting = [bench.ask(np.full(width, index, F4)) for index in range(4)]
    await bench.drive([first, *waiting])
    assert bench.sizes() == [1, 3, 1]
    check(waiting)


@run
async def test_of_files_their_own_bytes_are_counted():
    """Which numpy does not: it counts eight for each."""
    bench = Bench()
    first = await busy(bench)
    waiting = [bench.ask(bytes(MAX_JOINED_BYTES // 6), dtype=object) for _ in range(8)]
    await bench.drive([first, *waiting])
    assert bench.sizes() == [1, 6, 2]
    check(waiting)


KINDS = [
    {},
    {"version": 1},
    {"label": "stable"},
    {"signature": "other"},
    {"outputs": ("y",)},
    {"dtype": np.float64},
]


@run
async def test_only_requests_of_one_kind_are_joined():
    bench = Bench()
    first = await busy(bench)
    waiting = [bench.ask(*[index] * 2, **kind) for index, kind in enumerate(KINDS * 2)]
    waiting += [bench.ask([1, 2]), bench.ask([3, 4]), bench.ask([1, 2, 3])]
    await settle()
    await bench.drive([first, *waiting])
    check([first, *waiting])
    assert len(bench.calls) == 1 + len(KINDS) + 2
    assert sorted(bench.sizes()) == [1, 1, 2, *[4] * len(KINDS)]
    for call in bench.calls[1:]:
        assert call.kind.forms == (("x", call.x.dtype, call.x.shape[1:]),)


async def refused(bench, words):
    """Six requests, joined into a call that the model server refuses, and the one before them."""
    first = await busy(bench)
    waiting = [bench.ask(index) for index in range(6)]
    await settle()
    bench.calls[0].answer()
    await settle()
    assert bench.sizes() == [1, 6]
    bench.calls[1].fail(RejectedByModel(words))
    return [first, *waiting]


@run
async def test_the_model_servers_own_limit_is_learnt_from_its_refusal():
    bench = Bench()
    asked = await refused(bench, "Task size 6 is larger than maximum input batch size 4")
    await bench.drive(asked)
    assert bench.sizes() == [1, 6, 4, 2]
    check(asked)
    first, *more = [bench.ask(index) for index in range(9)]
    await bench.drive([first, *more])
    assert max(bench.sizes()[4:]) <= 4, "remembered"
    check(more)


@run
async def test_what_a_refusal_quotes_of_a_request_is_no_limit_of_the_model_servers():
    bench = Bench()
    sent = "Task size 6 is larger than maximum input batch size 1"
    words = f"StringToNumberOp could not correctly convert string: {sent}"
    await bench.drive(await refused(bench, words))
    assert bench.sizes() == [1, 6, *[1] * 6]
    await bench.drive([bench.ask(index) for index in range(20)])
    assert max(bench.sizes()[8:]) > 1


@run
async def test_a_limit_that_the_call_kept_to_is_not_tried_for_ever():
    bench = Bench()
    first = await busy(bench)
    waiting = [bench.ask(index) for index in range(3)]
    await settle()
    bench.calls[0].answer()
    await settle()
    bench.calls[1].fail(RejectedByModel("Task size 3 is larger than maximum input batch size 3"))
    await bench.drive([first, *waiting])
    assert bench.sizes() == [1, 3, 1, 1, 1]
    check(waiting)


@pytest.mark.parametrize("shape", [(), (1,), (4,), (2, 3)])
def test_outputs_that_are_not_one_row_each_are_never_shared_out_again(shape):
    @run
    async def test():
        bench = Bench()
        first = await busy(bench)
        waiting = [bench.ask(index) for index in range(3)]
        await settle()
        bench.calls[0].answer()
        await settle()
        bench.calls[1].outcome.set_result(Answer({"y": np.zeros(shape, F4)}, 1))
        await bench.drive([first, *waiting])
        assert bench.sizes() == [1, 3, 1, 1, 1]
        check(waiting)
        more = [bench.ask(index) for index in range(4)]
        other = [bench.ask(index, signature="other") for index in range(4)]
        await settle()
        await bench.drive([*more, *other])
        check([*more, *other])
        signatures = [(call.kind.signature, call.rows) for call in bench.calls[5:]]
        assert [rows for name, rows in signatures if name == "s"] == [1] * 4
        assert max(rows for name, rows in signatures if name == "other") > 1

    test()


@pytest.mark.parametrize("kind", [RejectedByModel, ModelServerFailed])
def test_one_bad_request_spoils_no_other(kind):
    @run
    async def test():
        bench = Bench()
        first = await busy(bench)
        waiting = [bench.ask(index) for index in (1, 2, 13, 4)]
        await settle()
        bench.calls[0].answer()
        await settle()
        bench.calls[1].fail(kind("something in it is wrong"))
        await settle()
        assert bench.sizes() == [1, 4, 1, 1, 1, 1], "each at once, not one after the other"
        while not all(task.done() for task in waiting):
            for call in bench.calls[2:]:
                if call.outcome.done():
                    continue
                if 13 in call.x:
                    call.fail(kind("13 is wrong"))
                else:
                    call.answer()
            await asyncio.sleep(0)
        bad = waiting.pop(2)
        with pytest.raises(kind, match="13 is wrong"):
            await bad
        await first
        check(waiting)

    test()


@run
async def test_parts_that_are_asked_alone_are_shared_out():
    """Each counts from when it is given to a server, before its call has left."""
    bench = Bench("one", "two")
    bench.servers.up[1].in_flight = 1  # of another model
    first = [bench.ask(index) for index in range(2)]
    await settle()
    waiting = [bench.ask(index) for index in range(4)]
    await settle()
    bench.calls[0].answer()
    await settle()
    assert bench.sizes() == [1, 1, 4]
    bench.calls[1].answer()
    bench.calls[2].fail(RejectedByModel("something in it is wrong"))
    await settle()
    assert Counter(call.server.name for call in bench.calls[3:]) == {"one": 2, "two": 2}
    await bench.drive([*first, *waiting])
    check(waiting)


@pytest.mark.parametrize(
    "error",
    [
        ModelServerUnavailable("it died", begun=True),
        ModelServerOverloaded("full"),
        DeadlineExceeded("too late"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_servers_own_fault_is_everybodys_and_is_not_asked_about_again(error):
    @run
    async def test():
        bench = Bench("one", "two")
        first = [bench.ask(0), bench.ask(0)]
        await settle()
        waiting = [bench.ask(index) for index in range(3)]
        await settle()
        bench.calls[0].answer()
        await settle()
        joined = bench.calls[2]
        assert joined.rows == 3
        joined.fail(error)
        bench.calls[1].answer()
        await settle()
        assert len(bench.calls) == 3
        raised = [task.exception() for task in waiting]
        assert {type(each) for each in raised} == {type(error)}
        assert {str(each) for each in raised} == {str(error)}
        assert len({id(each) for each in raised}) == 3, "an error of its own for each"
        await asyncio.gather(*first)

    test()


@run
async def test_a_bug_of_ours_leaves_nobody_waiting():
    bench = Bench()
    first = await busy(bench)
    waiting = [bench.ask(index) for index in range(3)]
    await settle()
    bench.calls[0].answer()
    await settle()
    bench.calls[1].fail(ZeroDivisionError("ours"))
    await settle()
    await first
    for task in waiting:
        with pytest.raises(ZeroDivisionError):
            await task


@run
async def test_what_no_server_has_begun_is_taken_to_another_and_only_that():
    bench = Bench("one", "two")
    task = bench.ask(1)
    for attempt in range(ATTEMPTS):
        while len(bench.calls) == attempt:
            await asyncio.sleep(0.001)
        if attempt < ATTEMPTS - 1:
            bench.calls[-1].fail(ModelServerUnavailable("loading", begun=False))
    assert len({call.server.name for call in bench.calls}) == 2
    bench.calls[-1].answer()
    await task
    check([task])

    task = bench.ask(2)
    await settle()
    bench.calls[-1].fail(ModelServerUnavailable("it died", begun=True))
    with pytest.raises(ModelServerUnavailable, match="it died"):
        await task
    assert len(bench.calls) == ATTEMPTS + 1


@run
async def test_a_version_that_loads_is_not_waited_for_where_another_may_answer():
    bench = Bench("one", "two")
    task = bench.ask(1, version=2)
    await settle()
    bench.calls[0].fail(ModelServerUnavailable("loading", begun=False, loading=True))
    await settle()
    assert task.done()
    with pytest.raises(ModelServerUnavailable, match="loading"):
        await task


@run
async def test_a_caller_that_leaves_the_line_is_not_sent():
    bench = Bench()
    first = await busy(bench)
    waiting = [bench.ask(index) for index in range(4)]
    await settle()
    waiting[0].cancel()
    waiting[2].cancel()
    await settle()
    await bench.drive([first, *waiting])
    assert [call.x.tolist() for call in bench.calls] == [[0], [1, 3]]
    check([waiting[1], waiting[3]])


@run
async def test_a_call_in_flight_goes_on_while_one_of_its_callers_is_left():
    bench = Bench()
    first = await busy(bench)
    waiting = [bench.ask(index) for index in range(3)]
    await settle()
    bench.calls[0].answer()
    await settle()
    for task in waiting[:2]:
        task.cancel()
    await settle()
    assert not bench.calls[1].outcome.cancelled()
    bench.calls[1].answer()
    await asyncio.gather(first, waiting[2])
    check([waiting[2]])


@run
async def test_a_call_that_nobody_waits_for_is_cancelled_and_the_next_goes():
    bench = Bench()
    first = await busy(bench)
    waiting = [bench.ask(index) for index in range(3)]
    await settle()
    bench.calls[0].answer()
    await settle()
    late = [bench.ask(index) for index in range(8)]
    await settle()
    for task in waiting:
        task.cancel()
    await settle()
    assert bench.calls[1].outcome.cancelled()
    await bench.drive([first, *late])
    check(late)


@run
async def test_the_direct_call_of_a_caller_that_leaves_is_cancelled():
    bench = Bench()
    first = await busy(bench)
    waiting = bench.ask(1)
    await settle()
    first.cancel()
    await settle()
    assert bench.calls[0].outcome.cancelled()
    assert bench.sizes() == [1, 1], "and its place is free"
    bench.calls[1].answer()
    await waiting


@run
async def test_callers_that_leave_make_the_calls_of_those_who_stay_no_fewer():
    bench = Bench()
    limiter = bench.joining._of("m").limiter
    limiter._make_room(8)
    for _ in range(10):
        stays = bench.ask(1)
        await bench.drive([stays])
        leaves = bench.ask(1)
        await asyncio.sleep(2 * limiter.usual_s)
        leaves.cancel()
        await settle()
        assert bench.calls[-1].outcome.cancelled()
    assert limiter.limit >= 7


@run
async def test_a_joined_call_has_the_time_of_the_part_that_has_most():
    bench = Bench()
    first = await busy(bench)
    waiting = [bench.ask(index, seconds=seconds) for index, seconds in enumerate((5, 50, 20))]
    await settle()
    bench.calls[0].answer()
    await settle()
    assert bench.calls[1].caller.deadline == waiting[1].caller.deadline
    assert bench.calls[1].time_s == waiting[1].caller.time_s
    await bench.drive([first, *waiting])


@run
async def test_a_part_whose_time_is_over_leaves_alone():
    bench = Bench()
    first = await busy(bench)
    short = asyncio.get_running_loop().create_task(asyncio.wait_for(bench.ask(1), 0.05))
    long = bench.ask(2)
    with pytest.raises(TimeoutError):
        await short
    await bench.drive([first, long])
    assert [call.x.tolist() for call in bench.calls] == [[0], [2]]
    check([long])


@run
async def test_lines_take_turns():
    bench = Bench(max_rows=2)
    first = await busy(bench)
    many = [bench.ask(index) for index in range(10)]
    few = [bench.ask(index, signature="other") for index in range(2)]
    await settle()
    await bench.drive([first, *many, *few])
    order = [call.kind.signature for call in bench.calls[1:]]
    assert order[:3] == ["s", "other", "s"], order
    check([*many, *few])


@run
async def test_a_slow_model_does_not_hold_up_another():
    bench = Bench()
    slow = [bench.ask(index, model="slow") for index in range(50)]
    await settle()
    assert [call.kind.model.name for call in bench.calls] == ["slow"]
    quick = [bench.ask(index, model="quick") for index in range(20)]
    await settle()
    while not all(task.done() for task in quick):
        for call in bench.calls:
            if call.kind.model.name == "quick" and not call.outcome.done():
                call.answer()
        await asyncio.sleep(0)
    check(quick)
    assert not any(task.done() for task in slow)
    await bench.drive(slow)


@run
async def test_a_model_that_is_not_to_be_joined_is_not():
    bench = Bench(joins=lambda name: name != "m")
    waiting = [bench.ask(index) for index in range(6)]
    others = [bench.ask(index, model="other") for index in range(6)]
    await settle()
    await bench.drive([*waiting, *others])
    assert [call.rows for call in bench.calls if call.kind.model.name == "m"] == [1] * 6
    assert max(call.rows for call in bench.calls if call.kind.model.name == "other") > 1
    check([*waiting, *others])


@run
async def test_requests_without_rows_are_not_joined():
    bench = Bench()
    waiting = [bench.ask(index, index, rows=False) for index in range(4)]
    await settle()
    await bench.drive(waiting)
    assert bench.sizes() == [2] * 4
    check(waiting)


@run
async def test_each_server_gets_calls_of_its_own():
    bench = Bench("one", "two")
    tasks = [bench.ask(index) for index in range(6)]
    await settle()
    assert sorted(call.server.name for call in bench.calls) == ["one", "two"]
    await bench.drive(tasks)
    check(tasks)


@run
async def test_where_no_server_takes_calls_the_failure_says_why():
    bench = Bench()
    bench.servers.up = []
    tasks = [bench.ask(index) for index in range(3)]
    deadline = time.monotonic() + 30
    while not all(task.done() for task in tasks):
        assert time.monotonic() < deadline
        for call in bench.calls:
            if not call.outcome.done():
                assert call.server is bench.servers.down
                call.fail(ModelServerUnavailable("nobody is there", begun=False))
        await asyncio.sleep(0.01)
    for task in tasks:
        with pytest.raises(ModelServerUnavailable, match="nobody is there"):
            await task


@run
async def test_a_caller_that_leaves_while_nobody_is_there_is_never_sent():
    bench = Bench()
    bench.servers.up = []
    waited = asyncio.Event()

    async def until_known(_):
        waited.set()
        await asyncio.sleep(3600)

    bench.servers.until_known = until_known
    gone = bench.ask(1)
    await waited.wait()
    gone.cancel()
    stays = bench.ask(2)
    await settle()
    bench.servers.change("one")
    await settle()
    assert [call.x.tolist() for call in bench.calls] == [[2]]
    bench.calls[0].answer()
    assert bench.joining.waiting() == 0
    stays.cancel()


@run
async def test_a_server_that_comes_gets_what_waits():
    bench = Bench("one")
    first = await busy(bench)
    waiting = bench.ask(1)
    await settle()
    assert len(bench.calls) == 1
    bench.servers.change("one", "two")
    await settle()
    assert len(bench.calls) == 2
    await bench.drive([first, waiting])


@run
async def test_those_that_have_waited_too_long_keep_others_out():
    bench = Bench(max_wait_s=5.0)
    bench.joining.check_wait("m", 30)
    first = await busy(bench)
    waiting = bench.ask(1)
    await settle()
    bench.joining.check_wait("m", 30)
    await asyncio.sleep(5.1)
    with pytest.raises(Busy, match='for the model "m" wait for more than'):
        bench.joining.check_wait("m", 30)
    bench.joining.check_wait("other", 30)
    await bench.drive([first, waiting])
    bench.joining.check_wait("m", 30)


@run
async def test_after_an_overload_small_calls_are_believed_to_take_as_long_as_small_ones():
    bench = Bench()
    limiter = bench.joining._of("m").limiter
    for rows, seconds in [(1, 0.02), *[(64, 0.7)] * 20]:
        limiter.record(rows, seconds, 0, time.monotonic())
    first = await busy(bench)
    waiting = bench.ask(1)
    await settle()
    bench.joining.check_wait("m", 2.0)
    await bench.drive([first, waiting])


def answered(bench, rows, seconds, *, calls=20):
    """The model has answered so many calls of so many rows, while others waited."""
    limiter = bench.joining._of("m").limiter
    now = time.monotonic() - calls * seconds
    limiter.begin_to_wait(now)
    for _ in range(calls):
        now += seconds
        limiter.record(rows, seconds, 1, now, waiting=True)


LARGE = range(65)  # more than are joined


@run
async def test_large_requests_of_a_size_that_never_was_keep_nobody_out():
    bench = Bench()
    answered(bench, 1, 0.1)
    tasks = [await busy(bench), *(bench.ask(*LARGE) for _ in range(5)), bench.ask(1)]
    await settle()
    bench.joining.check_wait("m", 30)  # at the pace of single rows they would take half a minute
    await bench.drive(tasks)


@run
async def test_large_requests_keep_others_out_for_as_long_as_their_like_takes():
    bench = Bench()
    answered(bench, 1, 0.001)
    answered(bench, len(LARGE), 1.0)
    tasks = [await busy(bench), *(bench.ask(*LARGE) for _ in range(5))]
    await settle()
    bench.joining.check_wait("m", 30)
    tasks += [bench.ask(*LARGE) for _ in range(20)]
    await settle()
    with pytest.raises(Busy):
        bench.joining.check_wait("m", 30)
    await bench.drive(tasks)
    bench.joining.check_wait("m", 30)


@run
async def test_small_requests_wait_for_no_longer_where_large_ones_were_answered():
    bench = Bench()
    answered(bench, 1, 0.1)
    answered(bench, len(LARGE), 0.1)
    tasks = [await busy(bench), *(bench.ask(index) for index in range(200))]
    await settle()
    with pytest.raises(Busy):  # 20 s, at the pace of single rows
        bench.joining.check_wait("m", 30)
    await bench.drive(tasks)


@run
async def test_closing_ends_what_is_in_flight():
    bench = Bench()
    first = await busy(bench)
    waiting = [bench.ask(index) for index in range(3)]
    await settle()
    bench.calls[0].answer()
    await settle()
    await bench.joining.close()
    assert bench.calls[1].outcome.cancelled()
    await first
    for task in waiting:
        task.cancel()


@run
async def test_models_that_clients_invent_are_forgotten():
    bench = Bench()
    for index in range(MAX_MODELS + 50):
        task = bench.ask(1, model=f"invented{index}")
        await asyncio.sleep(0)
        bench.calls[-1].answer()
        await task
        assert len(bench.joining._traffic) <= MAX_MODELS

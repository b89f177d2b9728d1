"""BatchingRunner: what joins, what waits, what is refused; a stand-in takes TensorFlow's place."""

import asyncio
import threading

import numpy as np
import pytest

from service.modelserver.batching import BatchingRunner
from service.modelserver.batching_options import BatchingOptions
from service.modelserver.errors import FailedPrecondition, InvalidArgument, Unavailable
from service.modelserver.runner import DirectRunner
from service.modelserver.servable import Run


class Doubler:
    """y = 2x; remembers the batches it ran, and runs none before it is let go."""

    def __init__(self, hold=False, batching=None):
        self.batches, self.batching = [], batching
        self.begun, self.go = threading.Event(), threading.Event()
        if not hold:
            self.go.set()

    def run(self, run, _deadline=None):
        self.begun.set()
        assert self.go.wait(60)
        x = run.feeds["x"]
        self.batches.append(x.tolist())
        if -1.0 in x:
            raise InvalidArgument("minus one")
        return {"y": x * 2}


def x(*values):
    return Run({"x": np.array(values, "f4")}, ("y",))


def make_runner(record=None):
    return BatchingRunner(1, DirectRunner(4), record)


def ask(options, servable, *runs, between=0.0, record=None):
    """The outcome of each run, asked for at the same time or `between` seconds apart."""
    servable.batching = options

    async def main():
        runner = make_runner(record)
        calls = []
        for run in runs:
            calls.append(asyncio.ensure_future(runner.run(servable, run)))
            await asyncio.sleep(between)
        threading.Timer(0.1, servable.go.set).start()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        await runner.close()
        return [
            outcome["y"].tolist() if isinstance(outcome, dict) else outcome for outcome in outcomes
        ]

    return asyncio.run(main())


def batches_without(cancelled, options, *runs, later=None):
    """What is run when one call is cancelled while it waits, and another comes `later`."""

    async def main():
        servable, runner = Doubler(hold=True, batching=options), make_runner()
        calls = [asyncio.ensure_future(runner.run(servable, run)) for run in runs]
        await asyncio.sleep(0.02)
        calls[cancelled].cancel()
        await asyncio.sleep(0)
        if later is not None:
            calls.append(asyncio.ensure_future(runner.run(servable, later)))
            await asyncio.sleep(0)
        servable.go.set()
        await asyncio.gather(*calls, return_exceptions=True)
        await runner.close()
        return servable.batches

    return asyncio.run(main())


DEFAULTS = BatchingOptions()
SPLIT = BatchingOptions(max_batch_size=10, split_at=4)


def test_runs_that_wait_at_the_same_time_are_joined():
    servable = Doubler(hold=True)
    assert ask(DEFAULTS, servable, x(1), x(2, 3), x(4)) == [[2], [4, 6], [8]]
    assert servable.batches == [[1], [2, 3, 4]]


def test_a_lone_run_does_not_wait_without_a_timeout():
    servable = Doubler()
    assert ask(DEFAULTS, servable, x(1), x(2), between=0.02) == [[2], [4]]
    assert servable.batches == [[1], [2]]


def test_a_timeout_lets_runs_gather():
    servable = Doubler()
    options = DEFAULTS._replace(timeout_s=1.0)
    assert ask(options, servable, x(1), x(2)) == [[2], [4]]
    assert servable.batches == [[1, 2]]


def test_a_full_batch_does_not_wait_for_its_timeout():
    servable = Doubler()
    options = BatchingOptions(timeout_s=60, max_batch_size=2)
    assert ask(options, servable, x(1), x(2), x(3, 4)) == [[2], [4], [6, 8]]
    assert servable.batches == [[1, 2], [3, 4]]


def test_a_run_that_does_not_fit_opens_the_next_batch():
    servable = Doubler(hold=True)
    options = DEFAULTS._replace(max_batch_size=3)
    ask(options, servable, x(0), x(1, 2), x(3, 4), x(5))
    assert servable.batches == [[0], [1, 2], [3, 4, 5]]


def test_unequal_sizes_are_not_joined():
    servable = Doubler(hold=True)
    ask(
        DEFAULTS,
        servable,
        x(0),
        Run({"x": np.ones((1, 2))}, ("y",)),
        Run({"x": np.ones((1, 3))}, ("y",)),
        Run({"x": np.zeros((1, 2))}, ("y",)),
    )
    assert servable.batches == [[0], [[1, 1], [0, 0]], [[1, 1, 1]]]


def test_unequal_sizes_are_padded_with_their_own_first_element_on_request():
    servable = Doubler(hold=True)
    options = DEFAULTS._replace(pad_variable_lengths=True)
    ask(
        options,
        servable,
        x(0),
        Run({"x": np.array([[7.0]])}, ("y",)),
        Run({"x": np.array([[1.0, 2.0]])}, ("y",)),
    )
    assert servable.batches == [[0], [[7, 7], [1, 2]]]


def test_a_batch_is_filled_up_to_an_allowed_size():
    servable = Doubler()
    options = BatchingOptions(max_batch_size=4, allowed_sizes=(1, 4))
    assert ask(options, servable, x(1, 2)) == [[2, 4]]
    assert servable.batches == [[1, 2, 1, 1]]


def test_one_bad_run_fails_alone():
    servable = Doubler(hold=True)
    outcomes = ask(DEFAULTS, servable, x(0), x(1), x(-1), x(2))
    assert [outcomes[0], outcomes[1], outcomes[3]] == [[0], [2], [4]]
    assert isinstance(outcomes[2], InvalidArgument)


def test_a_full_queue_is_unavailable():
    options = BatchingOptions(max_batch_size=1, max_enqueued_batches=1)
    outcomes = ask(options, Doubler(hold=True), x(0), x(1), x(2))
    assert outcomes[:2] == [[0], [2]]
    assert isinstance(outcomes[2], Unavailable)


def test_a_cancelled_run_does_not_run():
    assert batches_without(1, DEFAULTS, x(0), x(1), x(2)) == [[0], [2]]


def test_cancelled_runs_leave_the_queue_to_others():
    options = SPLIT._replace(max_enqueued_batches=2)
    assert batches_without(1, options, x(0), x(*range(8)), later=x(9)) == [[0], [9]]


def test_a_run_cancelled_in_its_thread_keeps_it_busy():
    """What comes meanwhile waits in the queue, where it can be joined and counts."""

    async def main():
        servable, runner = Doubler(hold=True, batching=DEFAULTS), make_runner()
        calls = [asyncio.ensure_future(runner.run(servable, x(0)))]
        async with asyncio.timeout(60):
            while not servable.begun.is_set():
                await asyncio.sleep(0.001)
        calls[0].cancel()
        await asyncio.sleep(0.02)
        calls += [asyncio.ensure_future(runner.run(servable, x(value))) for value in (1, 2)]
        await asyncio.sleep(0.02)
        servable.go.set()
        await asyncio.gather(*calls, return_exceptions=True)
        await runner.close()
        return servable.batches

    assert asyncio.run(main()) == [[0], [1, 2]]


def test_a_batch_that_failed_is_tried_again_without_those_who_have_left():
    class Deserted(Doubler):
        def run(self, run, _deadline=None):
            if len(run.feeds["x"]) == 3:
                loop.call_soon_threadsafe(calls[-1].cancel)
                assert left.wait(10)
            return super().run(run)

    async def main():
        nonlocal loop
        loop, servable, runner = asyncio.get_running_loop(), Deserted(True, DEFAULTS), make_runner()
        for value in (0, 1, -1, 2):
            calls.append(asyncio.ensure_future(runner.run(servable, x(value))))
            await asyncio.sleep(0)
        calls[-1].add_done_callback(lambda _: left.set())
        servable.go.set()
        await asyncio.gather(*calls, return_exceptions=True)
        await runner.close()
        return servable.batches

    loop, calls, left = None, [], threading.Event()
    assert asyncio.run(main()) == [[0], [1, -1, 2], [1], [-1]]


def test_no_rows_are_answered():
    assert ask(DEFAULTS, Doubler(), x()) == [[]]


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (Run({"x": np.float32(1)}, ("y",)), "at least one dimension"),
        (
            Run({"x": np.ones(2), "z": np.ones(3)}, ("y",)),
            r"equal 0th-dimension size; got \[2, 3\]",
        ),
        (x(*range(1001)), "Task size 1001 is larger than maximum input batch size 1000"),
    ],
)
def test_inputs_that_make_no_batch_are_refused(run, message):
    [error] = ask(DEFAULTS, Doubler(), run)
    with pytest.raises(InvalidArgument, match=message):
        raise error


@pytest.mark.parametrize("shape", [(), (3,)])
def test_an_output_that_is_not_the_batch_is_refused(shape):
    servable = Doubler()
    servable.run = lambda *_: {"y": np.ones(shape)}
    [error] = ask(DEFAULTS, servable, x(1, 2))
    assert isinstance(error, FailedPrecondition)


# ---- models of their own ways ----


def test_a_model_that_is_not_batched_is_run_beside_the_batches():
    servable = Doubler(hold=True)
    assert ask(None, servable, x(1), x(2), x(3)) == [[2], [4], [6]]
    assert sorted(servable.batches) == [[1], [2], [3]]


def test_models_have_queues_of_their_own_sizes():
    async def main():
        busy = Doubler(hold=True, batching=DEFAULTS)
        pairs = Doubler(batching=BatchingOptions(max_batch_size=2))
        threes = Doubler(batching=BatchingOptions(max_batch_size=3))
        runner = make_runner()
        calls = [asyncio.ensure_future(runner.run(busy, x(0)))]
        await asyncio.sleep(0)
        calls += [
            asyncio.ensure_future(runner.run(servable, x(value)))
            for value in (1, 2, 3)
            for servable in (pairs, threes)
        ]
        await asyncio.sleep(0)
        busy.go.set()
        await asyncio.gather(*calls)
        await runner.close()
        return pairs.batches, threes.batches

    assert asyncio.run(main()) == ([[1, 2], [3]], [[1, 2, 3]])


def test_a_full_batch_does_not_wait_behind_models_with_a_shorter_timeout():
    async def main():
        slow = Doubler(batching=BatchingOptions(max_batch_size=2, timeout_s=60))
        quick = Doubler(batching=DEFAULTS)
        runner = make_runner()

        async def keep_busy():
            while not slow.batches:
                await runner.run(quick, x(0))

        busy = [asyncio.ensure_future(keep_busy()) for _ in range(3)]
        await asyncio.sleep(0.02)
        async with asyncio.timeout(10):
            await asyncio.gather(*(runner.run(slow, x(value)) for value in (1, 2)), *busy)
        await runner.close()
        return slow.batches

    assert asyncio.run(main()) == [[1, 2]]


# ---- large-batch splitting ----


def test_a_large_run_is_split_over_batches_and_comes_back_whole():
    servable = Doubler()
    assert ask(SPLIT, servable, x(*range(10))) == [list(range(0, 20, 2))]
    assert servable.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_a_large_run_fills_the_open_batch_first():
    servable = Doubler(hold=True)
    assert ask(SPLIT, servable, x(0), x(1), x(2, 3, 4, 5, 6), x(7)) == [
        [0],
        [2],
        [4, 6, 8, 10, 12],
        [14],
    ]
    assert servable.batches == [[0], [1, 2, 3, 4], [5, 6, 7]]


def test_a_run_above_the_largest_call_is_refused_where_runs_are_split():
    [error] = ask(SPLIT, Doubler(), x(*range(11)))
    with pytest.raises(InvalidArgument, match="11 is larger than maximum input batch size 10"):
        raise error


def test_a_large_run_that_the_queue_cannot_take_is_unavailable_as_a_whole():
    servable = Doubler(hold=True)
    options = SPLIT._replace(max_enqueued_batches=2)
    outcomes = ask(options, servable, x(0), x(*range(1, 11)), x(11, 12))
    assert isinstance(outcomes[1], Unavailable)
    assert "task size is 10 but scheduling capacity is only 8" in str(outcomes[1])
    assert servable.batches == [[0], [11, 12]]


def test_the_parts_of_a_large_run_are_filled_up_to_allowed_sizes():
    servable = Doubler()
    options = SPLIT._replace(allowed_sizes=(2, 4, 10))
    assert ask(options, servable, x(1, 2, 3, 4, 5)) == [[2, 4, 6, 8, 10]]
    assert servable.batches == [[1, 2, 3, 4], [5, 5]]


def test_a_large_run_comes_back_whole_whatever_widths_it_waits_with():
    servable = Doubler(hold=True)
    options = SPLIT._replace(pad_variable_lengths=True)
    wide = Run({"x": np.ones((1, 3), "f4")}, ("y",))
    large = Run({"x": np.ones((6, 2), "f4")}, ("y",))
    small = Run({"x": np.ones((3, 2), "f4")}, ("y",))
    outcomes = ask(options, servable, x(0), wide, large, small, small)
    assert [np.shape(outcome) for outcome in outcomes[1:]] == [(1, 3), (6, 2), (3, 3), (3, 2)]


def test_a_large_run_fails_with_its_first_bad_part_and_takes_nobody_along():
    servable = Doubler(hold=True)
    outcomes = ask(SPLIT, servable, x(0), x(1, 2, 3, -1, 4, 5), x(6))
    assert isinstance(outcomes[1], InvalidArgument)
    assert [outcomes[0], outcomes[2]] == [[0], [12]]


def test_a_large_run_that_is_cancelled_does_not_run():
    assert batches_without(1, SPLIT, x(0), x(*range(1, 9)), x(9)) == [[0], [9]]


# ---- figures ----


def test_every_batched_run_is_told_with_how_long_its_calls_have_waited():
    told = []
    ask(DEFAULTS, Doubler(hold=True), x(0), x(1), x(2), record=told.append)
    alone, joined = told
    assert list(alone) == [0]
    assert len(joined) == 2
    assert all(0.05 < seconds < 10 for seconds in joined)  # `ask` lets go after 0.1 s

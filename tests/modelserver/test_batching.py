"""BatchingRunner: what joins, what waits, what is refused; a stand-in takes TensorFlow's place."""
import asyncio
import threading

import numpy as np
import pytest

from service.modelserver import batching
from service.modelserver.batching import BatchingOptions, BatchingRunner, batching_options
from service.modelserver.errors import FailedPrecondition, InvalidArgument, Unavailable
from service.modelserver.servable import Run
from service.protos.serving_pb2 import BatchingParameters


class Doubler:
    """y = 2x; remembers the batches it ran, and runs none before it is let go."""

    def __init__(self, hold=False):
        self.batches, self.go = [], threading.Event()
        if not hold:
            self.go.set()

    def run(self, run):
        assert self.go.wait(10)
        x = run.feeds["x"]
        self.batches.append(x.tolist())
        if -1.0 in x:
            raise InvalidArgument("minus one")
        return {"y": x * 2}


def x(*values):
    return Run({"x": np.array(values, "f4")}, ("y",))


def ask(options, servable, *runs, between=0.0):
    """The outcome of each run, asked for at the same time or `between` seconds apart."""
    async def main():
        runner = BatchingRunner(options)
        calls = []
        for run in runs:
            calls.append(asyncio.ensure_future(runner.run(servable, run)))
            await asyncio.sleep(between)
        threading.Timer(0.1, servable.go.set).start()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        await runner.close()
        return [outcome["y"].tolist() if isinstance(outcome, dict) else outcome
                for outcome in outcomes]

    return asyncio.run(main())


ONE_THREAD = BatchingOptions(threads=1)


def test_runs_that_wait_at_the_same_time_are_joined():
    servable = Doubler(hold=True)
    assert ask(ONE_THREAD, servable, x(1), x(2, 3), x(4)) == [[2], [4, 6], [8]]
    assert servable.batches == [[1], [2, 3, 4]]


def test_a_joined_batch_lies_where_tensorflow_reads_it_without_a_copy():
    runs = [x(*range(count)) for count in range(1, 6)]
    for dtype in ("u1", "f4", "f8"):
        for number in range(2, 6):  # numpy's own arrays begin at a multiple of 16
            some = [Run({"x": run.feeds["x"].astype(dtype)}, ("y",)) for run in runs[:number]]
            joined = batching._join(some, BatchingOptions()).feeds["x"]
            assert joined.ctypes.data % 64 == 0
            assert joined.tolist() == [value for run in some for value in run.feeds["x"]]


def test_a_lone_run_does_not_wait_without_a_timeout():
    servable = Doubler()
    assert ask(ONE_THREAD, servable, x(1), x(2), between=0.02) == [[2], [4]]
    assert servable.batches == [[1], [2]]


def test_a_timeout_lets_runs_gather():
    servable = Doubler()
    options = ONE_THREAD._replace(timeout_s=0.2)
    assert ask(options, servable, x(1), x(2), between=0.02) == [[2], [4]]
    assert servable.batches == [[1, 2]]


def test_a_full_batch_does_not_wait_for_its_timeout():
    servable = Doubler()
    options = BatchingOptions(threads=1, timeout_s=60, max_batch_size=2)
    assert ask(options, servable, x(1), x(2), x(3, 4)) == [[2], [4], [6, 8]]
    assert servable.batches == [[1, 2], [3, 4]]


def test_a_run_that_does_not_fit_opens_the_next_batch():
    servable = Doubler(hold=True)
    options = ONE_THREAD._replace(max_batch_size=3)
    ask(options, servable, x(0), x(1, 2), x(3, 4), x(5))
    assert servable.batches == [[0], [1, 2], [3, 4, 5]]


def test_unequal_sizes_are_not_joined():
    servable = Doubler(hold=True)
    ask(ONE_THREAD, servable, x(0), Run({"x": np.ones((1, 2))}, ("y",)),
        Run({"x": np.ones((1, 3))}, ("y",)), Run({"x": np.zeros((1, 2))}, ("y",)))
    assert servable.batches == [[0], [[1, 1], [0, 0]], [[1, 1, 1]]]


def test_unequal_sizes_are_padded_with_their_own_first_element_on_request():
    servable = Doubler(hold=True)
    options = ONE_THREAD._replace(pad_variable_lengths=True)
    ask(options, servable, x(0), Run({"x": np.array([[7.0]])}, ("y",)),
        Run({"x": np.array([[1.0, 2.0]])}, ("y",)))
    assert servable.batches == [[0], [[7, 7], [1, 2]]]


def test_a_batch_is_filled_up_to_an_allowed_size():
    servable = Doubler()
    options = BatchingOptions(max_batch_size=4, allowed_sizes=(1, 4))
    assert ask(options, servable, x(1, 2)) == [[2, 4]]
    assert servable.batches == [[1, 2, 1, 1]]


def test_one_bad_run_fails_alone():
    servable = Doubler(hold=True)
    outcomes = ask(ONE_THREAD, servable, x(0), x(1), x(-1), x(2))
    assert [outcomes[0], outcomes[1], outcomes[3]] == [[0], [2], [4]]
    assert isinstance(outcomes[2], InvalidArgument)


def test_a_full_queue_is_unavailable():
    options = BatchingOptions(threads=1, max_batch_size=1, max_enqueued_batches=1)
    outcomes = ask(options, Doubler(hold=True), x(0), x(1), x(2))
    assert outcomes[:2] == [[0], [2]]
    assert isinstance(outcomes[2], Unavailable)


def test_a_cancelled_run_does_not_run():
    async def main():
        servable, runner = Doubler(hold=True), BatchingRunner(ONE_THREAD)
        calls = [asyncio.ensure_future(runner.run(servable, x(value))) for value in (0, 1, 2)]
        await asyncio.sleep(0.02)
        calls[1].cancel()
        servable.go.set()
        await asyncio.gather(*calls, return_exceptions=True)
        await runner.close()
        return servable.batches

    assert asyncio.run(main()) == [[0], [2]]


def test_a_run_cancelled_in_its_thread_keeps_it_busy():
    """What comes meanwhile waits in the queue, where it can be joined and counts."""
    async def main():
        servable, runner = Doubler(hold=True), BatchingRunner(ONE_THREAD)
        calls = [asyncio.ensure_future(runner.run(servable, x(0)))]
        await asyncio.sleep(0.02)
        calls[0].cancel()
        await asyncio.sleep(0.02)
        calls += [asyncio.ensure_future(runner.run(servable, x(value))) for value in (1, 2)]
        await asyncio.sleep(0.02)
        servable.go.set()
        await asyncio.gather(*calls, return_exceptions=True)
        await runner.close()
        return servable.batches

    assert asyncio.run(main()) == [[0], [1, 2]]


def test_no_rows_are_answered():
    assert ask(ONE_THREAD, Doubler(), x()) == [[]]


@pytest.mark.parametrize(("run", "message"), [
    (Run({"x": np.float32(1)}, ("y",)), "at least one dimension"),
    (Run({"x": np.ones(2), "z": np.ones(3)}, ("y",)), r"equal 0th-dimension size; got \[2, 3\]"),
    (x(*range(1001)), "Task size 1001 is larger than maximum input batch size 1000"),
])
def test_inputs_that_make_no_batch_are_refused(run, message):
    [error] = ask(ONE_THREAD, Doubler(), run)
    with pytest.raises(InvalidArgument, match=message):
        raise error


@pytest.mark.parametrize("shape", [(), (3,)])
def test_an_output_that_is_not_the_batch_is_refused(shape):
    servable = Doubler()
    servable.run = lambda _: {"y": np.ones(shape)}
    [error] = ask(ONE_THREAD, servable, x(1, 2))
    assert isinstance(error, FailedPrecondition)


def test_parameters_have_tensorflow_servings_defaults():
    assert batching_options(BatchingParameters()) == BatchingOptions()
    assert BatchingOptions()[:3] == (1000, 0.0, 10)


@pytest.mark.parametrize(("given", "message"), [
    ({"max_batch_size": {"value": 8}, "allowed_batch_sizes": [1, 4]}, "expected 8"),
    ({"max_batch_size": {"value": 4}, "allowed_batch_sizes": [4, 2, 4]}, "increasing order"),
    ({"max_batch_size": {"value": 0}}, "max_batch_size must be positive; was 0"),
    ({"num_batch_threads": {"value": 0}}, "threads must be positive; was 0"),
])
def test_contradictory_parameters_are_refused(given, message):
    with pytest.raises(InvalidArgument, match=message):
        batching_options(BatchingParameters(**given))

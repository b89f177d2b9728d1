"""DirectRunner: so many runs at once, and those whose caller has gone do not begin."""

import asyncio
import threading

import pytest

from service.modelserver.errors import InvalidArgument
from service.modelserver.runner import DirectRunner


class Holding:
    """Runs nothing before it is let go; remembers what began."""

    def __init__(self):
        self.begun, self.go = [], threading.Event()

    def run(self, run, _deadline=None):
        self.begun.append(run)
        assert self.go.wait(60)
        if run == "bad":
            raise InvalidArgument("bad")
        return {"y": run}


def test_so_many_run_at_once_and_a_cancelled_one_never():
    async def main():
        servable, runner = Holding(), DirectRunner(threads=2)
        calls = [asyncio.ensure_future(runner.run(servable, number)) for number in range(4)]
        async with asyncio.timeout(60):
            while len(servable.begun) < 2:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)  # in which a third would begin
        assert sorted(servable.begun) == [0, 1]
        calls[2].cancel()
        await asyncio.sleep(0)  # the cancellation arrives
        servable.go.set()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        await runner.close()
        return servable.begun, outcomes

    begun, outcomes = asyncio.run(main())
    assert sorted(begun) == [0, 1, 3]
    assert [outcomes[number] for number in (0, 1, 3)] == [{"y": 0}, {"y": 1}, {"y": 3}]
    assert isinstance(outcomes[2], asyncio.CancelledError)


def test_an_error_reaches_the_caller():
    async def main():
        servable, runner = Holding(), DirectRunner(threads=1)
        servable.go.set()
        with pytest.raises(InvalidArgument):
            await runner.run(servable, "bad")
        await runner.close()

    asyncio.run(main())

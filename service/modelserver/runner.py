"""Runs TensorFlow outside the event loop, which reads and writes every call's messages.

Not `asyncio.to_thread`: its pool is the loop's default one, of a size that --grpc_max_threads does
not set, and a reload of the config sits in it until every new model is loaded. Runs have their own.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from service.modelserver.servable import Run, Servable, Tensors


class Runner(Protocol):
    """`run` gives the fetched tensors by name; cancelling it keeps a run that waits from starting.

    `deadline`: when its caller will have left, on the monotonic clock; None: never. `run` raises
    what TensorFlow raises, and ServingError where the run may not wait.
    """

    async def run(self, servable: Servable, run: Run, deadline: float | None = None) -> Tensors: ...

    async def close(self) -> None: ...


class DirectRunner:
    """Each run by itself, at most `threads` at once; the others wait in line."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, "run")

    async def run(self, servable: Servable, run: Run, deadline: float | None = None) -> Tensors:
        # Cancelling this keeps a run that waits from starting; its deadline alone stops one that
        # has begun, between two rounds of a loop.
        return await asyncio.get_running_loop().run_in_executor(
            self._pool, servable.run, run, deadline
        )

    async def close(self) -> None:
        self._pool.shutdown()

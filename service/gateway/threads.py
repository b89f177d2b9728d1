"""The threads of a worker, for what would hold up its event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

# What takes a millisecond and more is not done in the event loop: reading or writing so many bytes.
LARGE = 1 << 16

Result = TypeVar("Result")


class Threads:
    """So many, which begin with their first work. For one event loop."""

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, "work")

    async def run(self, work: Callable[..., Result], *arguments: object) -> Result:
        """`work(*arguments)` in a thread: what may take long however small it looks."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)

    async def run_if_large(
        self, size: int, work: Callable[..., Result], *arguments: object, most: int = LARGE
    ) -> Result:
        """`work(*arguments)`, in a thread where `size` bytes are too many for the event loop."""
        if size <= most:
            return work(*arguments)
        return await self.run(work, *arguments)

    def close(self) -> None:
        """Without waiting for what runs."""
        self._pool.shutdown(wait=False)

"""One call for all who ask the same at the same time."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Flights(Generic[Result]):
    """The calls that are under way. For one event loop."""

    def __init__(self) -> None:
        self._flying: dict[Hashable, asyncio.Future[Result | None]] = {}

    async def share(
        self, key: Hashable, ask: Callable[[], Awaitable[Result]]
    ) -> tuple[Result, bool]:
        """What `ask` gives, which is not None, and whether somebody else's call with this key gave
        it.

        Each waits no longer than it likes: who leaves, leaves alone. Where the call fails, or who
        made it leaves, those who waited make their own, as its error may be that one's alone: all
        at once, for one after the other would wait for many failures.
        """
        flying = self._flying.get(key)
        if flying is not None:
            result = await asyncio.shield(flying)
            return (await ask(), False) if result is None else (result, True)
        flying = self._flying[key] = asyncio.get_running_loop().create_future()
        result = None
        try:
            result = await ask()
            return result, False
        finally:
            del self._flying[key]
            flying.set_result(result)

"""A file that is read again when it changes, the last good reading of which stays in force."""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from service.gateway.file_state import state_of

LOOK_EVERY_S = 1.0
AHEAD_S = 0.75  # before a look is due; whoever looks ahead does so more often than that
PATIENCE_S = 0.25  # with a file system that does not answer; what was read last is in force then

Content = TypeVar("Content")

log = logging.getLogger(__name__)


class Watched(Generic[Content]):
    """`current` is what `read` made of the file's text when that last could be read; `due` is when
    it is time to look at the file again, on the monotonic clock.

    `read` raises ValueError for a text that it cannot use. `problem` says what is wrong with the
    file as it is now; "" for nothing. Raises ValueError where the file cannot be used at first.
    """

    def __init__(self, path: Path, read: Callable[[str], Content]) -> None:
        self._path, self._read = path, read
        self._looking: asyncio.Task[None] | None = None
        self.problem = ""
        self._seen = state_of(self._path)
        self.current = self._load()
        self.due = time.monotonic() + LOOK_EVERY_S

    async def fresh(self) -> Content:
        """What is in force: the file as it is, or was a second ago."""
        if time.monotonic() >= self.due:
            await asyncio.wait({self._begin_look()}, timeout=PATIENCE_S)
        return self.current

    def look_ahead(self) -> None:
        """Begin a look that will soon be due, so that nobody who asks has to wait for it."""
        if time.monotonic() >= self.due - AHEAD_S:
            self._begin_look()

    def _begin_look(self) -> asyncio.Task[None]:
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        return self._looking

    async def _look(self) -> None:
        try:
            await asyncio.to_thread(self.look)
        finally:
            self.due, self._looking = time.monotonic() + LOOK_EVERY_S, None

    def look(self) -> None:
        """Read the file if it has changed."""
        seen = state_of(self._path)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self.current, self.problem = self._load(), ""
        except ValueError as error:
            self.problem = str(error)
            log.error("%s; what it said before stays in force", error)
        else:
            log.info("%s has changed, and is in force", self._path)

    def _load(self) -> Content:
        try:
            return self._read(self._path.read_text())
        except OSError as error:
            raise ValueError(f"{self._path} cannot be read ({error.strerror})") from None
        except ValueError as error:  # and a text that is no UTF-8
            raise ValueError(f"{self._path}: {error}") from None

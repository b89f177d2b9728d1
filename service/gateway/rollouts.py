"""The rollouts that are in force, as the repository says: read again when their files change.

A gateway that can read no repository knows of none. What cannot be read or used changes nothing,
and is told: what was in force stays in force.
"""

import asyncio
import logging
import stat
import time
from collections.abc import Mapping
from pathlib import Path

from service.gateway.file_state import state_of
from service.gateway.witness import Witness
from sluice.wire.rollout_files import ROLLOUT_FILE, read_rollout
from sluice.wire.rollouts import Rollout

LOOK_EVERY_S = 1.0
PATIENCE_S = 2.0  # with a file system that does not answer, at the beginning and the end

log = logging.getLogger(__name__)


class Rollouts:
    """Those of the witness's repository. For one event loop.

    `in_force` by model; `problems` why a model's file, as it is now, is not.
    """

    def __init__(self, witness: Witness) -> None:
        self._repository, self._witness = witness.repository, witness
        self.in_force: Mapping[str, Rollout] = {}
        self.problems: dict[str, str] = {}
        self._seen: dict[str, tuple[int, ...]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._looked = 0.0

    async def open(self) -> None:
        """The first look."""
        if (looking := self.begin_look()) is not None:
            await asyncio.wait({looking}, timeout=PATIENCE_S)

    async def close(self) -> None:
        """Have written what was seen since the last look."""
        if self._looking is not None:
            await asyncio.wait({self._looking}, timeout=PATIENCE_S)
        if self._looking is None:
            await self._write()

    @property
    def problem(self) -> bool:
        """Whether a file cannot be used as it is, or what is seen of a rollout be written."""
        return bool(self.problems or self._witness.problem)

    def of(self, model: str) -> Rollout | None:
        """As it is, or was a second ago; with the look that it is time for, if it is."""
        if self._repository is None:
            return None
        self.begin_look()
        return self.in_force.get(model)

    def begin_look(self) -> asyncio.Task[None] | None:
        """In a thread, as the file system may not answer."""
        if self._repository is None:
            return None
        if self._looking is None and time.monotonic() - self._looked >= LOOK_EVERY_S:
            self._looking = asyncio.get_running_loop().create_task(self._look())
        return self._looking

    async def _look(self) -> None:
        try:
            await asyncio.to_thread(self.look)
            await self._write()
        finally:
            self._looked, self._looking = time.monotonic(), None

    async def _write(self) -> None:
        await asyncio.to_thread(self._witness.write, self._witness.due(self.in_force))

    def look(self) -> None:
        """Read what has changed."""
        assert self._repository is not None
        try:
            names = {path.name for path in self._repository.iterdir() if path.name[:1] != "."}
        except OSError as error:
            self._tell("", f"{self._repository} cannot be read ({error.strerror})")
            return
        self._tell("", "")
        for name in names | self.in_force.keys() | self.problems.keys():
            self._look_at(name, self._repository / name)

    def _look_at(self, name: str, directory: Path) -> None:
        """One model's file; of its own, so that no other waits for what is wrong with it."""
        before = self.in_force.get(name)
        seen = state_of(directory / ROLLOUT_FILE)
        if seen == self._seen.get(name, ()) and name not in self.problems:
            return
        try:
            if not stat.S_ISDIR(directory.stat().st_mode):
                return
            rollout = read_rollout(directory)
        except FileNotFoundError:  # a volume that is gone ends no rollout
            self._tell(name, "")
            return
        except (OSError, ValueError) as error:
            self._tell(name, str(error))
            return
        self._tell(name, "")
        self._seen[name] = seen
        if rollout != before:
            log.info("%s: %s", name, _told(rollout))
            others = {each: kept for each, kept in self.in_force.items() if each != name}
            self.in_force = others | ({name: rollout} if rollout else {})

    def _tell(self, name: str, problem: str) -> None:
        if problem and problem != self.problems.get(name):
            log.error("%s; what was in force stays in force", problem)
        self.problems.pop(name, None)
        if problem:
            self.problems[name] = problem


def _told(rollout: Rollout | None) -> str:
    if rollout is None:
        return "the newest version answers"
    share = f", but for {rollout.canary:.3g} of the requests" if rollout.canary else ""
    return f"{rollout.stage}: version {rollout.answering} answers{share}"

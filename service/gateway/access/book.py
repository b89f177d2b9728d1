"""What has been spent, in memory that the workers of a machine share.

A table of numbers in a file without a name, which every worker has from the process that it was
forked from. A number is forgotten once it says no more than none would, so the table needs no
cleaning; where too many callers meet in one place of it, the one nearest to that is.
"""

import fcntl
import hashlib
import mmap
import os
import tempfile
import time
import weakref
from functools import lru_cache

from service.gateway.access.limits import DAY, DAY_S, Outcome, Spending

SLOTS = 1 << 15
NEAR = 8  # slots in which a name's number may be
# In each three words: the name's hash, when it may be forgotten, and the number.
_WORDS, _UNTIL, _NUMBER = 3, 1, 2
_SIZE = 8 * _WORDS
SHARE_AHEAD = 0.01  # of a burst: what all workers together spend ahead of the requests that come


class Book:
    """For one event loop in each of the `workers`, which are processes. Where there are several, a
    lock that the system takes back from one that dies is held while numbers are read and written.
    """

    problem = ""

    def __init__(self, workers: int = 1) -> None:
        self._is_shared = workers > 1
        self.share_ahead = SHARE_AHEAD / workers
        with tempfile.TemporaryFile() as file:
            file.truncate((SLOTS + NEAR) * _SIZE)
            self._memory = mmap.mmap(file.fileno(), 0)
            self._file = os.dup(file.fileno())  # to lock
        # A word of them is read in a third of the time that struct takes for the slot.
        self._hashes = memoryview(self._memory).cast("Q")
        self._floats = memoryview(self._memory).cast("d")
        weakref.finalize(self, os.close, self._file)

    def look(self) -> None:
        pass

    async def spend(self, spendings: list[Spending]) -> Outcome:
        """See Store."""
        if not self._is_shared:
            return self._spend(spendings)
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            return self._spend(spendings)
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    async def close(self) -> None:
        pass

    def _spend(self, spendings: list[Spending]) -> Outcome:
        now = time.monotonic()
        hashes, floats = self._hashes, self._floats
        entries, used = [], []
        for name, limit, cost in spendings:
            place, key, number = self._look_up(name, limit.kind, now)
            wait_s, after, until = limit.spend(number, now, cost)
            if wait_s:
                kinds = [(each.name, each.limit.kind) for each in spendings]
                found = [self._look_up(*kind, now)[2] for kind in kinds]
                return Outcome(limit, wait_s, found, now)
            entries.append((place, key, until, after))
            used.append(after)
        for place, key, until, after in entries:
            hashes[place], floats[place + _UNTIL], floats[place + _NUMBER] = key, until, after
        return Outcome(None, 0.0, used, now)

    def _look_up(self, name: str, kind: str, now: float) -> tuple[int, int, float]:
        """The word at which a number is, or may be written; its key, and the number."""
        key = _hash(name, kind, int(time.time() // DAY_S) if kind == DAY else 0)
        place = key % SLOTS * _WORDS
        if self._hashes[place] != key:
            near = range(place, place + NEAR * _WORDS, _WORDS)
            place = min(
                near, key=lambda slot: (self._hashes[slot] != key, self._floats[slot + _UNTIL])
            )
            if self._hashes[place] != key:
                return place, key, 0.0
        if self._floats[place + _UNTIL] <= now:
            return place, key, 0.0
        return place, key, self._floats[place + _NUMBER]


@lru_cache(1 << 14)
def _hash(name: str, kind: str, day: int) -> int:
    digest = hashlib.blake2b(f"{kind} {day} {name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) or 1


@lru_cache(1)
def book_of(workers: int) -> Book:
    """The one of this process, and of so many that are forked from it once it was asked for."""
    return Book(workers)

"""What has been spent, in memory that the workers of a machine share.

A table of numbers in a file without a name, which every worker has from the process that it was
forked from. A number is forgotten once it says no more than none would, so the table needs no
cleaning; where too many callers meet in one place of it, the one nearest to that is.
"""

import fcntl
import hashlib
import mmap
import os
import struct
import tempfile
import time
import weakref
from functools import lru_cache

from service.gateway.access.limits import DAY, DAY_S, Outcome, Spending

SLOTS = 1 << 15
NEAR = 8  # slots in which a name's number may be
_SLOT = struct.Struct("=Qdd")  # name's hash, when it may be forgotten, the number
_SIZE = _SLOT.size


class Book:
    """For one event loop in each process; where several have it, it `is_shared`. A lock that the
    system takes back from a process that dies is held then while numbers are read and written."""

    problem = ""

    def __init__(self, is_shared: bool = True) -> None:
        self._is_shared = is_shared
        with tempfile.TemporaryFile() as file:
            file.truncate((SLOTS + NEAR) * _SIZE)
            self._memory = mmap.mmap(file.fileno(), 0)
            self._file = os.dup(file.fileno())  # to lock
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
        found = [self._find(_key(name, limit.kind), now) for name, limit, _ in spendings]
        used, entries = [], []
        for (_, limit, cost), (place, key, before) in zip(spendings, found, strict=True):
            wait_s, after, until = limit.spend(before, now, cost)
            if wait_s:
                return Outcome(limit, wait_s, [number for _, _, number in found], now)
            used.append(after)
            entries.append((place, key, until, after))
        for entry in entries:
            _SLOT.pack_into(self._memory, *entry)
        return Outcome(None, 0.0, used, now)

    def _find(self, key: int, now: float) -> tuple[int, int, float]:
        """Where the number of a name is, or may be written; its key, and the number."""
        start = key % SLOTS * _SIZE
        best, best_until = start, float("inf")
        for place in range(start, start + NEAR * _SIZE, _SIZE):
            there, until, number = _SLOT.unpack_from(self._memory, place)
            if there == key:
                return place, key, number if until > now else 0.0
            if until < best_until:
                best, best_until = place, until
        return best, key, 0.0


def _key(name: str, kind: str) -> int:
    return _hash(name, kind, int(time.time() // DAY_S) if kind == DAY else 0)


@lru_cache(1 << 14)
def _hash(name: str, kind: str, day: int) -> int:
    digest = hashlib.blake2b(f"{kind} {day} {name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) or 1


@lru_cache(1)
def book_of(workers: int) -> Book:
    """The one of this process, and of so many that are forked from it once it was asked for."""
    return Book(is_shared=workers > 1)

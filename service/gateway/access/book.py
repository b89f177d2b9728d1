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
    """For one event loop in each process. A lock that the system takes back from a process that
    dies is held while numbers are read and written."""

    def __init__(self) -> None:
        with tempfile.TemporaryFile() as file:
            file.truncate((SLOTS + NEAR) * _SIZE)
            self._memory = mmap.mmap(file.fileno(), 0)
            self._file = os.dup(file.fileno())  # to lock
        weakref.finalize(self, os.close, self._file)

    async def spend(self, spendings: list[Spending]) -> Outcome:
        """See Store."""
        now = time.monotonic()
        used: list[float] = []
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            places = [self._find(_key(each), now, used) for each in spendings]
            for each, number in zip(spendings, used, strict=True):
                wait_s = each.limit.wait_s(number, now, each.cost)
                if wait_s:
                    return Outcome(each.limit, wait_s, used, now)
            for index, (each, (place, key)) in enumerate(zip(spendings, places, strict=True)):
                used[index], until = each.limit.spent(used[index], now, each.cost)
                _SLOT.pack_into(self._memory, place, key, until, used[index])
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)
        return Outcome(None, 0.0, used, now)

    def _find(self, key: int, now: float, used: list[float]) -> tuple[int, int]:
        """Where the number of a name is, or may be written; the number goes behind `used`."""
        start = key % SLOTS * _SIZE
        best, best_until = start, float("inf")
        for place in range(start, start + NEAR * _SIZE, _SIZE):
            there, until, number = _SLOT.unpack_from(self._memory, place)
            if there == key:
                used.append(number if until > now else 0.0)
                return place, key
            if until < best_until:
                best, best_until = place, until
        used.append(0.0)
        return best, key


def _key(spending: Spending) -> int:
    kind = spending.limit.kind
    return _hash(spending.name, f"{DAY}{int(time.time() // DAY_S)}" if kind == DAY else kind)


@lru_cache(1 << 14)
def _hash(name: str, kind: str) -> int:
    digest = hashlib.blake2b(f"{kind} {name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) or 1


@lru_cache(1)
def shared_book() -> Book:
    """The one of this process and of those forked from it once it has been asked for."""
    return Book()

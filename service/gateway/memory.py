"""Memory for large requests: a worker keeps it while it is busy and gives it back when it is idle.

glibc alone gives the end of its heap back after every large request, and takes it anew, page by
page, for the next one: half of the CPU time of a 2 MB array's way through a gateway.
"""

import ctypes
import gc
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

KEPT_BYTES = 128 << 20  # at a heap's end
# How malloc behaves in this process is settled when it starts, from its environment.
MALLOC = {
    # Heaps, of which there is one a thread else. malloc_trim leaves the end of all but the first as
    # it is: what the largest requests once took there would stay.
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),  # bytes; larger blocks are never kept. glibc's maximum
    "MALLOC_TRIM_THRESHOLD_": str(KEPT_BYTES),
}
_STATM = Path("/proc/self/statm")
IDLE_S = 1.0  # a worker that hardly works for so long is idle
IDLE_SHARE = 0.05  # of one core's time; gRPC's own threads take up to 0.03 while nothing happens


def keep_memory() -> None:
    """For the process that this one will become; a variable that is set is left as it is."""
    for name, value in MALLOC.items():
        os.environ.setdefault(name, value)


def resident_bytes() -> int:
    """What this process holds of the machine's memory; 0 where only Linux would tell."""
    try:
        pages = int(_STATM.read_bytes().split()[1])
    except FileNotFoundError:
        return 0
    return pages * resource.getpagesize()


class IdleTrim:
    """Gives back what malloc holds, once, when a process that worked has become idle."""

    def __init__(self, give_back: Callable[[], None] | None = None) -> None:
        self._give_back = give_back or give_memory_back
        self._since, self._used_s = time.monotonic(), time.process_time()
        self._worked = False

    def beat(self) -> None:
        """To be called every second or more often."""
        now = time.monotonic()
        if now - self._since < IDLE_S:
            return
        used_s = time.process_time()
        busy = used_s - self._used_s > IDLE_SHARE * (now - self._since)
        if self._worked and not busy:
            self._give_back()
        self._worked = busy
        self._since, self._used_s = now, used_s


def give_memory_back() -> None:
    """What requests have left in rings of references, which Python looks for seldom, and what
    malloc keeps."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; others do not keep so much
    if trim is not None:
        trim(0)

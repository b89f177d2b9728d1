"""Messages that are on their way over gRPC, and the memory that they take.

gRPC hands a message over once it is whole: nobody can count what has come of one. So while any is
on its way, the memory of the process is looked at. Where that is over what operations.md tells of a
worker, all of them are sent away, and none is read until it is below.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from service.gateway.caller import Caller
from service.gateway.deadlines import Deadlines, Within
from service.gateway.errors import BodyTimeout, Busy, DeadlineExceeded, MalformedRequest
from service.gateway.memory import KEPT_BYTES, give_memory_back, resident_bytes
from service.gateway.settings import Settings

# Of a server: of a call whose next message nobody reads yet, gRPC takes 64 kB. Left to itself it
# takes what the connection is good for, which is 7 MB and more where that is fast.
UNREAD = ("grpc.http2.bdp_probe", 0)
BODIES = 3  # what a worker takes for each byte of the bodies in flight, bytes
LOOK_EVERY_S = 0.05
GIVE_BACK_EVERY_S = 0.5  # what malloc keeps, which else looks like what is held
# Of no message on its way, after which what the worker holds is no message's: it has grown.
QUIET_S = 3.0
# gRPC says that a message will not come before it says why: the client has left, or the message is
# over the limit, which end the call; or there is none.
ENDED_S = 0.1

Read = Callable[[], Awaitable[object]]


class Arrivals:
    """Of one event loop. `resident_bytes` and `give_back` are the process's."""

    def __init__(
        self,
        settings: Settings,
        resident_bytes: Callable[[], int] = resident_bytes,
        give_back: Callable[[], None] = give_memory_back,
    ) -> None:
        self._resident_bytes, self._give_back = resident_bytes, give_back
        answers = settings.cache_max_bytes if settings.cache_models else 0
        self._room_bytes = max(BODIES * settings.max_bytes_in_flight, KEPT_BYTES) + answers
        self._least_bytes = self._own_bytes = resident_bytes()
        self._deadlines = Deadlines()
        self._open: set[Within] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False
        self._looked = self._gave_back = self._was_open = 0.0  # when last, on the monotonic clock

    async def message(self, read: Read, caller: Caller) -> bytes:
        """The one that gRPC's `read` of a call gives, which has the caller's time to come. Raises
        Busy, BodyTimeout, MalformedRequest."""
        with self.open(caller):
            message = await read()
        if isinstance(message, bytes):
            return message
        await asyncio.sleep(ENDED_S)
        raise MalformedRequest("The call ended without a message")

    @contextmanager
    def open(self, caller: Caller) -> Iterator[None]:
        """Around what messages of a call may come in. Raises Busy, also in the middle, where there
        is no room for them, and BodyTimeout."""
        if self._is_full():
            raise self._no_room()
        try:
            with self._deadlines.within(caller) as block:
                self._open.add(block)
                self._look_later()
                try:
                    yield
                finally:
                    self._open.discard(block)
                    self._was_open = time.monotonic()
        except DeadlineExceeded:
            if caller.time_left_s() > 0:
                raise self._no_room() from None
            raise BodyTimeout(f"The message did not come within {caller.time_s:.3g} s") from None

    def _no_room(self) -> Busy:
        return Busy(
            "What comes takes all the memory that is set for it (SLUICE_MAX_BYTES_IN_FLIGHT); "
            "try again"
        )

    def _is_full(self) -> bool:
        now = time.monotonic()
        if self._open:
            self._was_open = now
        if now - self._looked >= LOOK_EVERY_S:
            self._looked = now
            self._is_over = self._has_no_room()
            if self._is_over and now - self._gave_back >= GIVE_BACK_EVERY_S:
                self._gave_back = now
                self._give_back()
                self._is_over = self._has_no_room()
            if self._is_over and now - self._was_open >= QUIET_S:
                self._own_bytes = self._resident_bytes()
                self._is_over = False
        return self._is_over

    def _has_no_room(self) -> bool:
        resident = self._resident_bytes()
        # What it had grown by for a time (a load of pictures over HTTP) is no room for messages.
        self._own_bytes = max(min(self._own_bytes, resident), self._least_bytes)
        return resident > self._own_bytes + self._room_bytes

    def _look_later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._open and self._is_full():
            for block in self._open:
                self._deadlines.forget(block)
                block.end()
            self._open.clear()
        if self._open:
            self._look_later()

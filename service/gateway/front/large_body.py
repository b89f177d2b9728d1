"""The rest of a large body, read to where it lies until it is whole.

asyncio hands what it reads over in pieces of 256 kB, and each is copied twice before it is kept: 4
MB of JSON as text come in sixteen turns, for each of which the event loop waits until the threads
that decode let go of the interpreter. Here the kernel writes into the pieces that are kept, which
grow with what has come, and reads without the interpreter.
"""

import asyncio
from typing import Any

import numpy as np

LEAST_LEFT = 1 << 18  # bytes that are still to come; less comes in one turn
LEAST_CAME = 1 << 16  # and that have: a client that announces much and sends little gets no room


class LargeBody(asyncio.BufferedProtocol):
    """Takes a connection over from `front`, and gives it back with the body's last byte: what comes
    behind that is another request. `came` and `left` are the bytes of the body."""

    def __init__(self, front: Any, came: int, left: int) -> None:
        self._front, self._came, self._left = front, came, left
        self._room = memoryview(b"")

    def take_over(self) -> None:
        self._pass_to(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Room for as much as has come already, so that nobody gets memory for what he only
        announces."""
        del sizehint
        if not self._room:  # numpy's, for a bytearray is filled with zeros first
            self._room = np.empty(min(self._left, self._came), np.uint8).data
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        piece, self._room = self._room[:nbytes], self._room[nbytes:]
        self._came += nbytes
        self._left -= nbytes
        if not self._left:
            # An empty view keeps all of the room, and uvloop, as TLS, who it has read for.
            self._room = memoryview(b"")
            self._pass_to(self._front)
        self._front.body_came(piece, whole=not self._left)
        if not self._left:
            self._front = None

    def eof_received(self) -> bool | None:
        ends: bool | None = self._front.eof_received()
        return ends

    def connection_lost(self, exc: Exception | None) -> None:
        self._front.connection_lost(exc)
        self._front = None  # TLS keeps who it has read for

    def pause_writing(self) -> None:
        self._front.pause_writing()

    def resume_writing(self) -> None:
        self._front.resume_writing()

    def _pass_to(self, protocol: asyncio.BaseProtocol) -> None:
        """uvloop settles how it reads when it begins to."""
        transport = self._front.transport
        reads = transport.is_reading()
        transport.pause_reading()
        transport.set_protocol(protocol)
        if reads:
            transport.resume_reading()

"""What comes on an HTTP/1.1 connection: a request's head, its body, and the next one behind it.

gunicorn's parser takes what comes; what is added keeps requests apart that come in one piece, and
leads large bodies round it.
"""

import asyncio
import fcntl
import re
import select
import sys
import termios
import time
from typing import Any
from urllib.parse import unquote_to_bytes

from gunicorn.asgi.protocol import ASGIProtocol, BodyReceiver

from service.gateway.front.large_body import LEAST_CAME, LEAST_LEFT, LargeBody

# gunicorn looks for its C parser on the class of a connection, and for what it found on this one.
ASGIProtocol._check_h1c_protocol_available()

# Of what comes behind a request, gunicorn's C parser keeps so many bytes, and then ends the
# connection: a client that asks at once for something large does so before we have turned round.
KEPT_AHEAD = 1 << 16
# What may wait for the event loop to take it; to pause and go on is two system calls.
BODY_BUFFER = 1 << 20
# What stands before the path where a client asks as it would a proxy (RFC 9112, 3.2.2).
_HOST = re.compile(rb"https?://[^/]*", re.IGNORECASE)


def has_unread(transport: Any) -> bool:
    """Whether something has come that the event loop has not read yet."""
    if transport.is_closing():  # it may have no descriptor any more
        return False
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))


def unacknowledged(transport: Any) -> int:
    """Bytes that the system has and the other side's does not; 0 once the connection closes."""
    if transport.is_closing():
        return 0
    descriptor = transport.get_extra_info("socket").fileno()
    return int.from_bytes(fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


class _Body(BodyReceiver):  # type: ignore[misc]
    """gunicorn's, less its timer for each piece: the clock is `FrontProtocol.look`."""

    def take_whole(self) -> bytes | None:
        """All of the body, where it has come already and in one piece, as small ones do: without
        ASGI's messages."""
        chunks = self._chunks
        if not self._complete or self._closed or len(chunks) > 1:
            return None
        self._body_finished = True
        if not chunks:
            return b""
        self._buffered = 0
        self.protocol._maybe_resume_reading()
        whole: bytes = chunks.popleft()
        return whole

    async def _wait_for_data(self) -> None:
        if self._chunks or self._complete or self._disconnected:
            return
        self._waiter = self.protocol.worker.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None


class ReadingProtocol(ASGIProtocol):  # type: ignore[misc]
    """One connection. `worker` is a FrontWorker. Times are on the monotonic clock."""

    _closed: bool  # gunicorn's: nothing is read or answered any more
    _callback_parser: Any
    _body_receiver: Any

    def __init__(self, worker: Any) -> None:
        super().__init__(worker)
        self._began = 0.0  # when the first byte came of the request that is next; 0: none has
        self._moved = time.monotonic()
        self._body_since = 0.0
        self._body_bytes = 0
        self._max_buffer_size = BODY_BUFFER  # gunicorn: beyond it, reading pauses
        self._body_left = 0  # of the announced length, what has not come
        self._went_round = False  # whether the body has gone round the parser, all of it
        self._ahead = b""  # what came of the next request before this one was done with

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._task.add_done_callback(self._let_go)

    def _let_go(self, task: asyncio.Task[None]) -> None:
        """Of what leads back here, once all is answered: a closed connection and its TLS would stay
        until Python looks for rings of references, which under load is seldom."""
        del task
        self._callback_parser = self._body_receiver = None

    def data_received(self, data: bytes) -> None:
        if self._closed:
            return
        self._moved = time.monotonic()
        self._body_bytes += len(data)
        if not self._began and not self._request_ready.is_set():
            self._began = self._moved
        if self._ahead:
            self._keep(data)
        else:
            self._read(data)
        self._look_behind()

    def _read(self, data: bytes) -> None:
        """Up to a request's end; what lies behind it waits until that is answered."""
        start = 0
        while start < len(data) and not self._closed:
            if self._is_whole():
                self._keep(data[start:])
                return
            end = start + max(self._body_left, KEPT_AHEAD)
            super().data_received(data[start:end])
            start = end
        self._look_at_size()

    def _look_at_size(self) -> None:
        """Whether what is left of a body had better go round the parser."""
        if self._body_left < LEAST_LEFT or self._closed:
            return
        came = self._current_request.content_length - self._body_left
        if came >= LEAST_CAME:
            LargeBody(self, came, self._body_left).take_over()

    def body_came(self, piece: memoryview, whole: bool) -> None:
        """A piece of a body that goes round the parser."""
        if self._closed:
            return
        self._moved = time.monotonic()
        self._body_bytes += len(piece)
        self._body_left -= len(piece)
        self._body_receiver.feed(piece)
        if whole:
            self._went_round = True
            self._body_receiver.set_complete()
        if self._is_buffer_full():
            self._pause_reading()

    def _is_whole(self) -> bool:
        """Whether all of a request has come, so that what comes now is the next one's."""
        if self._went_round:
            return bool(self._request_ready.is_set())  # until gunicorn is done with it
        return bool(self._callback_parser.is_complete)

    def _look_behind(self) -> None:
        """What comes while a request is there is its body; the next one begins behind its end."""
        if self._began or not self._request_ready.is_set() or not self._is_whole():
            return
        if self._ahead or self._callback_parser.remaining():
            self._began = self._moved

    def _keep(self, data: bytes) -> None:
        self._ahead += data
        if len(self._ahead) > KEPT_AHEAD:
            self._pause_reading()

    def _resume_reading(self) -> None:
        super()._resume_reading()
        if self._ahead:  # gunicorn calls this, then makes its parser ready for the next request
            self.worker.loop.call_soon(self._read_ahead)

    def _read_ahead(self) -> None:
        if self._closed or self._is_whole():
            return  # the end of the request that came first reads on
        data, self._ahead = self._ahead, b""
        self._read(data)

    def _on_headers_complete(self) -> Any:
        self._body_since, self._body_bytes = time.monotonic(), 0
        skips_body = super()._on_headers_complete()
        request = self._current_request
        if not request.path.startswith("/"):
            request.raw_path = _HOST.sub(b"", request.raw_path, count=1) or b"/"
            request.path = unquote_to_bytes(request.raw_path).decode("utf-8", "replace")
        self._body_left, self._went_round = request.content_length or 0, False
        self._body_receiver = _Body(request, self)
        return skips_body

    def _on_body(self, chunk: bytes) -> None:
        self._body_left -= len(chunk)
        super()._on_body(chunk)

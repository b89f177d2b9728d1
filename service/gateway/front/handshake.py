"""TLS before HTTP: one connection until its handshake is done.

By `loop.start_tls`, and not by `create_server(ssl=...)`: each connection takes the certificates
that are in force when it comes, counts among the connections while it shakes hands, and is told
where it speaks plain HTTP.
"""

import asyncio
import ssl
import time
from collections.abc import Callable
from typing import Any

from service.gateway.error_responses import error_body
from service.gateway.front.reading import has_unread

AGAIN_S = 0.05  # until a look at what has come meanwhile
SHUTDOWN_S = 1.0  # for the client's own end, when a connection is closed
HANDSHAKE = 0x16  # TLS's type of record that a client begins with
_PLAIN = error_body("This port speaks TLS: ask for https://")
_REFUSAL = b"".join(
    [
        b"HTTP/1.1 400 Bad Request\r\nServer: sluice\r\nContent-Type: application/json\r\n",
        b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(_PLAIN),
        _PLAIN,
    ]
)


class NotTls(Exception):
    """What came is no record of TLS."""


class Handshake(asyncio.Protocol):
    """`worker` is a FrontWorker; `follow` makes the protocol that takes over.

    A handshake that fails, or is not done within the time of a request's head, ends the connection.
    """

    def __init__(self, worker: Any, follow: Callable[[], Any]) -> None:
        self._worker, self._follow = worker, follow
        self._began = time.monotonic()
        self._shaking: asyncio.Task[None] | None = None
        self._heard = b""  # before TLS; then, what the client says at once behind its handshake
        self._gone = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._peer = transport.get_extra_info("peername")  # one that was reset has none any more
        if self._worker.turns_away(transport):
            self._gone = True
            return
        self._worker.handshakes.add(self)
        within_s = self._worker.settings.head_timeout_s
        self._silence = self._worker.loop.call_later(within_s, self._look)

    def data_received(self, data: bytes) -> None:
        self._heard += data
        if self._shaking is not None or self._gone:
            return
        self._silence.cancel()
        if self._heard[0] == HANDSHAKE:
            self._transport.pause_reading()  # until TLS reads
            self._shaking = self._worker.loop.create_task(self._shake())
        else:
            self._transport.write(_REFUSAL)
            self._transport.close()
            self._fail(NotTls())

    def _look(self) -> None:
        """Whether anything was said in time. What has come is read first: an event loop that has
        stood still comes to its timers before that."""
        if has_unread(self._transport):
            self._silence = self._worker.loop.call_later(AGAIN_S, self._look)
        else:
            self._fail(TimeoutError("nothing was said"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._shaking is None and not self._gone:
            self._silence.cancel()
            self._fail(exc or EOFError("it was closed"))
        self._gone = True

    async def _shake(self) -> None:
        loop, took_s = self._worker.loop, time.monotonic() - self._began
        starting = loop.create_task(
            loop.start_tls(
                self._transport,
                self,
                self._worker.gateway.tls.current.context,
                server_side=True,
                ssl_handshake_timeout=max(self._worker.settings.head_timeout_s - took_s, 0.01),
                ssl_shutdown_timeout=SHUTDOWN_S,
            )
        )
        await asyncio.sleep(0)  # it has put its protocol in place, and called for it to begin
        heard, self._heard = self._heard, b""
        loop.call_soon(_hear, self._transport, heard)
        try:
            secured = await starting
        except OSError as error:  # ssl.SSLError and the time-out among them
            self._fail(error)
            return
        self._worker.handshakes.discard(self)
        if secured is not None and not self._gone:  # asyncio's None: it was reset meanwhile
            self._hand_over(secured)

    def _hand_over(self, secured: Any) -> None:
        protocol = self._follow()
        protocol.below = self._transport
        secured.set_protocol(protocol)
        protocol.connection_made(secured)
        if self._heard:
            protocol.data_received(self._heard)

    def _fail(self, error: Exception) -> None:
        self._gone = True
        self._worker.handshakes.discard(self)
        self._worker.handshake_failed(self._peer, error)
        if not self._transport.is_closing():
            self._transport.abort()


def certificate_of(transport: Any) -> bytes:
    """The client's, PEM, which TLS has verified as it was asked for; b"" where none was."""
    secured = transport.get_extra_info("ssl_object")
    shown = secured and secured.getpeercert(binary_form=True)
    return ssl.DER_cert_to_PEM_cert(shown).encode() if shown else b""


def _hear(transport: Any, data: bytes) -> None:
    """Give TLS what had come before it was there."""
    protocol: asyncio.BufferedProtocol = transport.get_protocol()
    while data and not transport.is_closing():
        buffer = memoryview(protocol.get_buffer(len(data)))
        size = min(len(buffer), len(data))
        buffer[:size] = data[:size]
        protocol.buffer_updated(size)
        data = data[size:]

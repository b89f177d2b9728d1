"""gunicorn's HTTP/1.1 protocol, and the patience that it lacks a limit for.

gunicorn reads, parses and writes; what is added is the clock: a head or a body that does not come,
or comes too slowly, a client that does not read its answer, and one that has asked nothing for long
end their connection. There are no timers for it, which every request would pay for: each connection
remembers when it last moved, and `look` is called twice a second (by worker.py).
"""

import select
import time
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from gunicorn.asgi.protocol import ASGIProtocol, BodyReceiver, _get_cached_date_header

from service.gateway.caller import Caller
from service.gateway.error_responses import error_body
from service.gateway.front.asgi import Body
from service.gateway.front.handshake import certificate_of
from service.gateway.front.large_body import LEAST_CAME, LEAST_LEFT, LargeBody
from service.gateway.headers import combined
from service.gateway.http import ClientGone, HttpRequest, HttpResponse
from service.gateway.settings import Settings

# gunicorn looks for its C parser on the class of a connection, and for what it found on this one.
ASGIProtocol._check_h1c_protocol_available()

# Of what comes behind a request, gunicorn's C parser keeps so many bytes, and then ends the
# connection: a client that asks at once for something large does so before we have turned round.
KEPT_AHEAD = 1 << 16
# What may wait for the event loop to take it; to pause and go on is two system calls.
BODY_BUFFER = 1 << 20
SETTLE_S = 5.0  # that a body has before its rate is looked at
LINGER_S = 1.0  # for what is still on its way when a connection is closed


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


class FrontProtocol(ASGIProtocol):  # type: ignore[misc]
    """One connection. `worker` is a FrontWorker."""

    _closed: bool  # gunicorn's: nothing is read or answered any more

    def __init__(self, worker: Any) -> None:
        super().__init__(worker)
        self._began = 0.0  # when the first byte came of the request that is next; 0: none has
        self._moved = time.monotonic()
        self._body_since = 0.0
        self._body_bytes = 0
        self._max_buffer_size = BODY_BUFFER  # gunicorn: beyond it, reading pauses
        self._body_left = 0  # of the announced length, what has not come
        self._went_round = False  # whether the body has gone round the parser, all of it
        self._stuck_since = 0.0  # since when the client does not read; 0: it does
        self._ahead = b""  # what came of the next request before this one was done with
        self._refused = False

    def connection_made(self, transport: Any) -> None:
        if self.worker.is_full():
            transport.abort()
            return
        self.worker.connections.add(self)
        self._certificate = certificate_of(transport)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self in self.worker.connections:
            self.worker.connections.discard(self)
            super().connection_lost(exc)

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

    def pause_writing(self) -> None:
        self._stuck_since = time.monotonic()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stuck_since = 0.0
        super().resume_writing()

    @property
    def is_idle(self) -> bool:
        """Whether no request is being read or answered."""
        return not self._request_ready.is_set() and not self._began

    def has_unread(self) -> bool:
        """Whether something has come that the event loop has not read yet: closed over it, the
        connection would be reset."""
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def close_idle(self) -> None:
        """Of a connection that waits for its next request."""
        self._close_transport()
        self._request_ready.set()

    def look(self, now: float, settings: Settings) -> None:
        """Close the connection if its client has been waited for long enough."""
        if self._closed:
            return
        if self._stuck_since and now - self._stuck_since > settings.body_timeout_s:
            self.transport.abort()
        elif not self._request_ready.is_set():
            self._look_at_head(now, settings)
        elif (
            self._body_receiver is not None
            and not self._body_receiver._complete
            and not self._reading_paused
        ):
            self._look_at_body(now, settings)

    def _arm_keepalive_timer(self) -> None:
        """gunicorn's word for the beginning of a wait for one more request: `look` ends it."""
        self._moved = time.monotonic()

    def _look_at_head(self, now: float, settings: Settings) -> None:
        within_s = settings.head_timeout_s
        if self._began:
            if now - self._began > within_s:
                self._refuse(f"The request's head did not come within {within_s:g} s")
        elif now - self._moved > (self._keepalive if self.req_count > 1 else within_s):
            self.close_idle()  # nothing has been asked, so nothing is answered

    def _look_at_body(self, now: float, settings: Settings) -> None:
        took_s = now - self._body_since
        if now - self._moved > settings.body_timeout_s:
            self._refuse(
                f"The body made no progress for {settings.body_timeout_s:g} s "
                "(SLUICE_BODY_TIMEOUT_S)"
            )
        elif took_s > SETTLE_S and self._body_bytes < settings.min_body_rate * took_s:
            self._refuse(
                f"The body comes with less than {settings.min_body_rate} bytes/s "
                "(SLUICE_MIN_BODY_RATE)"
            )
        elif took_s > settings.request_timeout_s:
            self._refuse(f"The body did not come within {settings.request_timeout_s:g} s")

    def _refuse(self, message: str) -> None:
        self._send_error_response(408, message)
        self._close_transport()
        self._request_ready.set()

    def _on_headers_complete(self) -> Any:
        self._body_since, self._body_bytes = time.monotonic(), 0
        skips_body = super()._on_headers_complete()
        request = self._current_request
        self._body_left, self._went_round = request.content_length or 0, False
        self._body_receiver = _Body(request, self)
        return skips_body

    def _on_body(self, chunk: bytes) -> None:
        self._body_left -= len(chunk)
        super()._on_body(chunk)

    async def _serve_http_request(self, request: Any, sockname: Any, peername: Any) -> bool:
        """Answer; whether the connection is kept.

        In the connection's own task, and for models without ASGI's messages: gunicorn makes a task
        for each request, for applications that go on behind their answer, and looks through headers
        that an application may have made of a client's text.
        """
        began, self._began = self._began or time.monotonic(), 0.0
        self._look_behind()
        found = self.app.route(request.method, request.path)
        if found is None:
            keeps: bool = await self._handle_http_request(request, sockname, peername)
            return keeps
        receiver, gateway = self._body_receiver, self.app.gateway
        whole = receiver.take_whole()
        asked = self._asked(request, whole or b"")
        caller = gateway.caller(asked, began)
        client = peername[0] if isinstance(peername, tuple) else "-"
        body = Body(receiver.receive) if whole is None else None
        try:
            response = await gateway.answer(*found, asked, body and body.whole, caller, client)
        except ClientGone:
            return False
        if self._closed:
            return False
        receiver.expect_continue = False
        closes: bool = self._will_close(request, False)
        await self._respond(request, response, caller, closes)
        if body is not None and not body.done:
            await body.read_out()
        return not closes

    def _asked(self, request: Any, body: bytes) -> HttpRequest:
        headers = combined(
            [
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in request.headers_bytes
            ]
        )
        method, path, query = request.method, request.path, request.query
        return HttpRequest(method, path, query, headers, body, self._certificate)

    def _build_http_scope(self, request: Any, sockname: Any, peername: Any) -> Any:
        """For Flask's pages, with the client's certificate where ASGI's TLS extension has it."""
        scope = super()._build_http_scope(request, sockname, peername)
        if self._certificate:
            chain = [self._certificate.decode()]
            scope.setdefault("extensions", {})["tls"] = {"client_cert_chain": chain}
        return scope

    async def _respond(
        self, request: Any, response: HttpResponse, caller: Caller, closes: bool
    ) -> None:
        lines = [
            _start(
                request.version,
                response.status,
                self._get_reason_phrase(response.status),
                response.content_type,
            ),
            b"%d\r\nx-request-id: %b\r\n" % (len(response.body), caller.request_id.encode()),
            *(f"{name}: {value}\r\n".encode("latin-1") for name, value in response.headers.items()),
            _get_cached_date_header(),
            b"Connection: close\r\n\r\n" if closes else b"\r\n",
        ]
        self._response_buffer = b"".join(lines)
        self._send_body(response.body if request.method != "HEAD" else b"")
        if self._flow_control.write_paused:
            await self._flow_control.drain()

    def _send_error_response(
        self, status: int, message: str, extra_headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        """What gunicorn refuses by itself, in the one shape of all errors."""
        headers = (("Content-Type", "application/json"), ("Server", "sluice"), *extra_headers)
        body = error_body(f"Malformed request: {message}" if status == 400 else message)
        reason = self._get_reason_phrase(status)
        lines = [f"HTTP/1.1 {status} {reason}", f"Content-Length: {len(body)}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers]
        self._safe_write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        self._refused = True

    def _close_transport(self) -> None:
        """Where more was sent than is taken, it goes on coming for a moment, and is not looked at:
        closed over it, the connection would be reset, and the client never see its answer."""
        if self._closed or self.transport.is_closing() or not self._has_more():
            super()._close_transport()
            return
        self._closed = True
        if self._body_receiver is not None:
            self._body_receiver.signal_disconnect()
        super()._resume_reading()
        if self.transport.can_write_eof():  # TLS has no half that is closed
            self.transport.write_eof()
        self.worker.loop.call_later(LINGER_S, self.transport.close)

    def _has_more(self) -> bool:
        return self._refused or bool(self._ahead) or self.has_unread()

    def _is_websocket_upgrade(self, request: Any) -> bool:
        """Never: who asks for what we do not speak is answered in HTTP/1.1 (RFC 9110, 7.8)."""
        del request
        return False


@lru_cache(256)
def _start(version: tuple[int, int], status: int, reason: str, content_type: str) -> bytes:
    """How an answer starts, up to the number of its bytes."""
    return (
        f"HTTP/{version[0]}.{version[1]} {status} {reason}\r\nserver: sluice\r\n"
        f"content-type: {content_type}\r\ncontent-length: "
    ).encode("latin-1")

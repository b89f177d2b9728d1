"""One HTTP/1.1 connection: what is asked on it is answered, and who takes too long is left.

gunicorn reads, parses (reading.py) and writes; what is added is the clock: a head or a body that
does not come, or comes too slowly, a client that does not read its answer, and one that has asked
nothing for long end their connection. There are no timers for it, which every request would pay
for: each connection remembers when it last moved, and `look` is called twice a second (by
worker.py).
"""

import time
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from gunicorn.asgi.protocol import _get_cached_date_header

from service.gateway.caller import Caller
from service.gateway.error_responses import error_body
from service.gateway.front.asgi import Body
from service.gateway.front.handshake import certificate_of
from service.gateway.front.reading import ReadingProtocol, has_unread, unacknowledged
from service.gateway.front.unsent import LARGE, Owed
from service.gateway.headers import combined
from service.gateway.http import ClientGone, HttpRequest, HttpResponse
from service.gateway.settings import Settings

SETTLE_S = 5.0  # that a body has before its rate is looked at
LINGER_S = 1.0  # for what is still on its way when a connection is closed


class FrontProtocol(ReadingProtocol):
    """One connection. `worker` is a FrontWorker; `below`, the transport that TLS writes to, where
    there is TLS."""

    below: Any = None

    def __init__(self, worker: Any) -> None:
        super().__init__(worker)
        self._is_stuck = False  # whether more was answered than the client has taken
        self._owed, self._answer_bytes = Owed(), 0
        self._refused = False

    def connection_made(self, transport: Any) -> None:
        if self.worker.turns_away(transport):
            return
        self.worker.connections.add(self)
        self._certificate = certificate_of(transport)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self in self.worker.connections:
            self.worker.connections.discard(self)
            self.worker.unsent.discard(self)
            super().connection_lost(exc)

    def pause_writing(self) -> None:
        self._is_stuck = True
        super().pause_writing()

    def resume_writing(self) -> None:
        self._is_stuck = False
        self._owed.forget()
        super().resume_writing()

    @property
    def is_idle(self) -> bool:
        """Whether no request is being read or answered."""
        return not self._request_ready.is_set() and not self._began

    def has_unread(self) -> bool:
        """Closed over it, the connection would be reset."""
        return has_unread(self.transport)

    def close_idle(self) -> None:
        """Of a connection that waits for its next request, unless that has come."""
        if self.has_unread():
            return
        self._close_transport()
        self._request_ready.set()

    def look(self, now: float, settings: Settings) -> None:
        """Close the connection if its client has been waited for long enough."""
        is_sending = self._is_sending()
        if is_sending:
            self._moved = now
        if self._closed or self._is_stuck or is_sending:
            self._look_at_answer(now, settings)  # what was answered last may have to go out yet
            return
        self._owed.forget()
        if not self._request_ready.is_set():
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

    def _look_at_answer(self, now: float, settings: Settings) -> None:
        self.worker.unsent.add(self)
        self._owed.look(self._untaken(), now)
        if self._owed.has_waited(now, settings):
            self.hang_up("unread")

    def _left(self) -> int:
        """Bytes of answers that the system has not taken yet."""
        below = self.below.get_write_buffer_size() if self.below is not None else 0
        size: int = self.transport.get_write_buffer_size() + below
        return size

    def _untaken(self) -> int:
        """The same, and what the system has taken that the client's has not: it takes some MB at
        once and then nothing for seconds, from who reads a MB a second as from who reads none."""
        return self._left() + unacknowledged(self.transport)

    def held(self) -> int:
        """Bytes of memory: an answer is kept as a whole until the last of it is taken."""
        left = self._left()
        return max(self._answer_bytes, left) if left else 0

    def taken(self, now: float) -> tuple[int, float]:
        return self._owed.taken(self._untaken(), now)

    def hang_up(self, reason: str) -> None:
        self.worker.unsent.discard(self)
        self.worker.gateway.telemetry.connection_closed(reason)
        self.transport.abort()

    def _is_sending(self) -> bool:
        """Over TLS, which takes an answer as a whole, tells of none of it, and is cut off a second
        after it is closed."""
        return self.below is not None and self._left() > 0

    def _refuse(self, message: str) -> None:
        """Unless more has come, which is looked at once it is read: an event loop that has stood
        still comes to its timers first (uvloop's does), and it was not the client who was late."""
        if self.has_unread():
            return
        late = "body" if self._request_ready.is_set() else "head"
        self.worker.gateway.telemetry.connection_closed(late)
        self._send_error_response(408, message)
        self._close_transport()
        self._request_ready.set()

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
        del asked, whole  # while the client takes the answer
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
        body = response.body if request.method != "HEAD" else b""
        self._answer_bytes = len(body)
        if self._answer_bytes > LARGE and not self._left():
            self._owed.forget()  # the answer before, which no look may have found taken
        self._send_body(body)
        if self._answer_bytes > LARGE and self._left():
            self._look_at_answer(time.monotonic(), self.worker.settings)
            self.worker.make_room()
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
        closed over it, the connection would be reset, and the client never see its answer. Over TLS
        nor would it see all of one that is larger than what has gone out."""
        waits = self._has_more() or self._is_sending()
        if self._closed or self.transport.is_closing() or not waits:
            super()._close_transport()
            return
        self._closed = True
        if self._body_receiver is not None:
            self._body_receiver.signal_disconnect()
        super()._resume_reading()
        if self.transport.can_write_eof():  # TLS has no half that is closed
            self.transport.write_eof()
        self.worker.loop.call_later(LINGER_S, self._close_once_sent)

    def _close_once_sent(self) -> None:
        if self._is_sending():
            self.worker.loop.call_later(LINGER_S, self._close_once_sent)
        else:
            self.transport.close()

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

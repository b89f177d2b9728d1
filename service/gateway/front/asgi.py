"""What HTTP's requests lead to in the event loop: those about models are answered here, and what is
left (pages, the OpenAPI document, what no route takes) is Flask's, in a pool of threads.

Where a path leads is Flask's URL map's to say, so a route is declared once.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache
from typing import Any

from a2wsgi import WSGIMiddleware
from flask import Flask
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect

from service.gateway.error_responses import error_response
from service.gateway.errors import GatewayError, PayloadTooLarge
from service.gateway.gateway import Gateway
from service.gateway.http import ClientGone, HttpResponse
from service.gateway.routes.model_paths import FlaskView
from service.gateway.views import ModelView, model_of
from sluice.wire.model_ref import ModelRef

Message = MutableMapping[str, Any]
ReceiveMessage = Callable[[], Awaitable[Message]]
SendMessage = Callable[[Message], Awaitable[None]]

_SERVER = (b"server", b"sluice")
_METHODS = frozenset({"GET", "HEAD", "POST"})  # the others are Flask's to refuse or to describe


READ_OUT_S = 1.0


class Front:
    """`app` is the Flask application of the same gateway, for which this is an ASGI callable."""

    def __init__(self, gateway: Gateway, app: Flask) -> None:
        self.gateway = gateway
        wsgi: Any = app  # a2wsgi and Flask type WSGI's environ apart
        self._flask = WSGIMiddleware(wsgi, workers=gateway.settings.threads)
        self._views = app.view_functions
        self._urls = app.url_map.bind("localhost")
        self.route = lru_cache(1024)(self._match)  # of paths that clients invent

    async def __call__(self, scope: Message, receive: ReceiveMessage, send: SendMessage) -> None:
        """Flask's: the body is read here, so that no thread waits for a client, and let go: what
        Flask answers here takes none, and strangers, whom nobody has asked for a key yet, are not
        to fill the memory with them."""
        if scope["type"] != "http":
            return  # there are no WebSockets here
        try:
            await Body(receive).pass_over(_Limit(self.gateway.settings.max_body_bytes))
        except ClientGone:
            return
        except GatewayError as error:
            await _send(send, error_response(error))
            return
        asking = _Asking(receive, send)
        try:
            await self._flask(scope, asking.receive, asking.send)  # type: ignore[arg-type]
        finally:
            asking.let_go()

    def _match(self, method: str, path: str) -> tuple[ModelView, ModelRef] | None:
        """The view of a path about models, and which; None where it is Flask's to answer."""
        if method not in _METHODS:
            return None
        try:
            endpoint, where = self._urls.match(path, method)
        except (HTTPException, RequestRedirect):
            return None
        view = self._views[endpoint]
        if not isinstance(view, FlaskView):
            return None
        return view.view, model_of(dict(where))


class Body:
    """A request's body as it comes. `done` once all of it has been taken."""

    __slots__ = ("_receive", "done")

    def __init__(self, receive: ReceiveMessage) -> None:
        self._receive = receive
        self.done = False

    async def whole(self, hold: Callable[[int], None]) -> bytes:
        """All of it; `hold` is told of each piece's size, and refuses what is too much. Raises what
        it raises, and ClientGone."""
        pieces: list[bytes] = []
        while not self.done:
            piece = await self._next()
            hold(len(piece))
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def pass_over(self, hold: Callable[[int], None]) -> None:
        """The same, and keep nothing of it."""
        while not self.done:
            hold(len(await self._next()))

    async def read_out(self) -> None:
        """Take what still comes of a body that was refused, for a moment: a connection that is
        closed with bytes unread is reset, and the client may never see the answer."""
        with contextlib.suppress(TimeoutError, ClientGone):
            async with asyncio.timeout(READ_OUT_S):
                while not self.done:
                    await self._next()

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        self.done = not message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        return piece


class _Asking:
    """Flask's way to the connection. The body has been read; an answer says whose server it is."""

    def __init__(self, receive: ReceiveMessage, send: SendMessage) -> None:
        self._receive, self._send = receive, send
        self._messages = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive(self) -> Message:
        message = next(self._messages, None)
        return message if message is not None else await self._receive()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [_SERVER, *message["headers"]]
        await self._send(message)

    def let_go(self) -> None:
        """Of the connection, which the traceback of a page's error would keep in a ring."""
        del self._receive, self._send


class _Limit:
    """What holds a page's body: not admission, which is for work on models."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = self._left_bytes = most_bytes

    def __call__(self, size: int) -> None:
        self._left_bytes -= size
        if self._left_bytes < 0:
            raise PayloadTooLarge(self._most_bytes)


async def _send(send: SendMessage, response: HttpResponse) -> None:
    headers = [
        _SERVER,
        (b"content-type", response.content_type.encode("latin-1")),
        (b"content-length", b"%d" % len(response.body)),
        *((name.encode(), value.encode("latin-1")) for name, value in response.headers.items()),
    ]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})

"""Flask's way in: any WSGI server, and `app.test_client()`, get the same answers as the front."""

from collections.abc import Callable
from typing import IO

from flask import Response, current_app, g, request
from werkzeug.exceptions import RequestEntityTooLarge

from service.gateway.body import read_stream
from service.gateway.caller import Caller
from service.gateway.errors import PayloadTooLarge
from service.gateway.gateway import Gateway
from service.gateway.http import HttpRequest, HttpResponse
from service.gateway.loops import AnyLoopRunner
from service.gateway.views import ModelView
from sluice.wire.model_ref import ModelRef


def gateway() -> Gateway:
    current: Gateway = current_app.extensions["gateway"]
    return current


def runner() -> AnyLoopRunner:
    current: AnyLoopRunner = current_app.extensions["runner"]
    return current


def request_head() -> HttpRequest:
    """Flask's current request less its body."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    query = request.query_string.decode("latin-1")
    return HttpRequest(request.method, request.path, query, headers, b"", _certificate())


def _certificate() -> bytes:
    """The client's, where the front has it; under another server TLS is that server's affair."""
    scope = request.environ.get("asgi.scope", {})
    chain = scope.get("extensions", {}).get("tls", {}).get("client_cert_chain", [])
    return chain[0].encode() if chain else b""


def page_caller() -> Caller:
    """Whoever asks for a page, and what it asks the model server."""
    caller: Caller = g.caller
    return caller


def answer(view: ModelView, model: ModelRef) -> Response:
    """The view's answer to Flask's current request, whose body this thread has read already."""
    here = gateway()
    head, caller = request_head(), page_caller()
    try:
        body = read_stream(_stream(), request.content_length, here.settings.max_body_bytes)
        size = len(body)
    except (PayloadTooLarge, RequestEntityTooLarge):
        body, size = b"", here.settings.max_body_bytes + 1

    async def read(hold: Callable[[int], None]) -> bytes:
        hold(size)
        return body

    client = request.remote_addr or "-"
    return flask_response(
        runner().run(here.answer(view, model, head, read, caller, client)), caller
    )


def flask_response(response: HttpResponse, caller: Caller | None = None) -> Response:
    answer = Response(response.body, response.status, content_type=response.content_type)
    answer.headers.update(response.headers)
    if caller is not None:
        answer.headers["X-Request-Id"] = caller.request_id
    return answer


def _stream() -> IO[bytes]:
    """A chunked body's own stream where the server ends it: Werkzeug's would cut it in silence."""
    if request.content_length is None and "wsgi.input_terminated" in request.environ:
        stream: IO[bytes] = request.environ["wsgi.input"]
        return stream
    return request.stream

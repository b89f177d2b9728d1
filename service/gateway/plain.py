"""Flask's way in: any WSGI server, and `app.test_client()`, get the same answers as the front."""

import time
from typing import IO

from flask import Response, current_app, request
from werkzeug.exceptions import RequestEntityTooLarge

from service.gateway.body import read_stream
from service.gateway.caller import Caller
from service.gateway.error_responses import error_response
from service.gateway.errors import GatewayError, PayloadTooLarge
from service.gateway.gateway import Gateway
from service.gateway.http import HttpRequest, HttpResponse
from service.gateway.loops import Runner
from service.gateway.routes.model_paths import PROBE, ModelView
from sluice.wire.model_ref import ModelRef


def gateway() -> Gateway:
    current: Gateway = current_app.extensions["gateway"]
    return current


def runner() -> Runner:
    current: Runner = current_app.extensions["runner"]
    return current


def page_caller() -> Caller:
    """For what a page asks the model server."""
    return Caller.within(gateway().settings.request_timeout_s)


def answer(view: ModelView, model: ModelRef) -> Response:
    """The view's answer to Flask's current request, counted and logged."""
    here = gateway()
    head = HttpRequest(
        request.method,
        request.path,
        request.query_string.decode("latin-1"),
        {name.lower(): value for name, value in request.headers.items()},
        b"",
    )
    caller = here.caller(head, time.monotonic())
    try:
        body = read_stream(_stream(), request.content_length, head.headers, here.settings)
    except (GatewayError, RequestEntityTooLarge) as error:
        if isinstance(error, RequestEntityTooLarge):
            error = PayloadTooLarge(here.settings.max_body_bytes)
        if isinstance(error, PayloadTooLarge):
            here.telemetry.refused(type(error).__name__)
        response, reason, whole = error_response(error), str(error), head
    else:
        whole = head._replace(body=body)
        response, reason = runner().run(_admitted(here, view, model, whole, caller))
    here.observe(view, model.name, whole, response, caller, request.remote_addr or "-", reason)
    return flask_response(response, caller)


def flask_response(response: HttpResponse, caller: Caller | None = None) -> Response:
    answer = Response(response.body, response.status, content_type=response.content_type)
    answer.headers.update(response.headers)
    if caller is not None:
        answer.headers["X-Request-Id"] = caller.request_id
    return answer


async def _admitted(
    here: Gateway, view: ModelView, model: ModelRef, whole: HttpRequest, caller: Caller
) -> tuple[HttpResponse, str]:
    if view.dialect == PROBE:
        return await here.respond(view, model, whole, caller)
    try:
        with here.admission.place(model.name, len(whole.body), caller.time_left_s()):
            return await here.respond(view, model, whole, caller)
    except GatewayError as error:
        return error_response(error), str(error)


def _stream() -> IO[bytes]:
    """A chunked body's own stream where the server ends it: Werkzeug's would cut it in silence."""
    if request.content_length is None and "wsgi.input_terminated" in request.environ:
        stream: IO[bytes] = request.environ["wsgi.input"]
        return stream
    return request.stream

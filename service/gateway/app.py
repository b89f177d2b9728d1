"""The gateway's application: everything is wired here, and nothing happens at import."""

import logging
import sys
import time

from flask import Flask, Response, current_app, g, render_template, request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect

from service.gateway import errors, plain
from service.gateway.access.grant import STATUS
from service.gateway.access.guard import check_reach
from service.gateway.caller import Caller
from service.gateway.capturing import check_capture
from service.gateway.error_responses import error_body, error_response
from service.gateway.exchange import Exchange
from service.gateway.gateway import Gateway
from service.gateway.http import JSON
from service.gateway.loops import AnyLoopRunner, OwnLoopRunner
from service.gateway.routes import docs, oip, ops, page, tfs
from service.gateway.routes.model_paths import CONVERTERS, FlaskView
from service.gateway.settings import Settings
from service.gateway.variables import InvalidSetting

# They tell nothing of any model, and a browser needs them before it can show a key.
OPEN_PAGES = ("page.static", "ops.root", "tfs.malformed")


def create_app(
    settings: Settings, gateway: Gateway | None = None, runner: AnyLoopRunner | None = None
) -> Flask:
    """The WSGI application that answers from the model server of `settings`.

    gateway, runner: the front's own, where one runs in this process.
    """
    app = Flask(__name__, static_folder=None)
    app.url_map.merge_slashes = False
    app.url_map.converters |= CONVERTERS
    gateway = gateway or Gateway.of(settings)
    app.extensions |= {
        "gateway": gateway,
        "runner": runner or OwnLoopRunner(gateway.predictions),
        "answer": plain.answer,
    }
    app.before_request(_begin)
    app.before_request(_tell_of_origins)
    app.before_request(_admit)
    app.after_request(_observe_page)
    app.after_request(_allow_origin)
    app.register_blueprint(tfs.routes)
    app.register_blueprint(docs.routes)
    app.register_blueprint(page.routes)
    app.register_blueprint(oip.routes)
    app.register_blueprint(ops.routes)
    app.register_error_handler(errors.Unauthenticated, _ask_for_key)
    app.register_error_handler(errors.GatewayError, _refusal)
    app.register_error_handler(HTTPException, _http_error)
    return app


def from_environment() -> Flask:
    """The application that SLUICE_* describes, for a WSGI server of one's own."""
    settings = Settings.from_environment()
    check_reach(settings)
    check_capture(settings)
    if settings.tls_certificate_file:
        raise InvalidSetting(
            "SLUICE_TLS_CERTIFICATE_FILE: TLS is the affair of the WSGI server that runs this "
            "application; give it the certificate, or run `sluice gateway`"
        )
    set_up_logging(settings)
    return create_app(settings)


def set_up_logging(settings: Settings) -> None:
    logging.basicConfig(
        stream=sys.stderr,
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )


def _begin() -> None:
    g.caller, g.reason = plain.gateway().caller(plain.request_head(), time.monotonic()), ""


def _tell_of_origins() -> Response | None:
    """A browser's question before the request of another site's page: it comes without a key."""
    if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
        return None
    methods = [method for method in ("GET", "HEAD", "POST") if _is_answered(method)]
    said = plain.gateway().cors.preflight(request.headers.get("Origin"), methods)
    return Response(status=204, headers=said) if said and methods else None


def _is_answered(method: str) -> bool:
    """Whether a route takes the path, and not only to say that there is none."""
    urls = current_app.create_url_adapter(request)
    try:
        return urls is not None and urls.match(method=method)[0] != "tfs.malformed"
    except (HTTPException, RequestRedirect):
        return False


def _allow_origin(response: Response) -> Response:
    response.headers.update(plain.gateway().cors.headers(request.headers.get("Origin")))
    return response


def _admit() -> None:
    """To a page. What is about a model is let in where it is answered."""
    here, endpoint, caller = plain.gateway(), request.endpoint, plain.page_caller()
    if endpoint is None or endpoint in OPEN_PAGES or not here.guard.asks:
        return
    if isinstance(current_app.view_functions[endpoint], FlaskView):
        return
    head, peer = plain.request_head(), request.remote_addr or "-"
    plain.runner().run(here.identify(head.headers, peer, 0, caller))
    if endpoint == "ops.metrics":
        caller.grant.check_all(STATUS)
    else:
        here.permit(caller, (request.view_args or {}).get("model", ""), "page")


def _observe_page(response: Response) -> Response:
    """What is about a model is observed where it is answered; scrapes are not counted."""
    view = current_app.view_functions.get(request.endpoint or "")
    if isinstance(view, FlaskView) or request.path == "/metrics":
        return response
    caller: Caller = g.caller
    response.headers["X-Request-Id"] = caller.request_id
    page = Exchange(
        dialect="page",
        verb=request.url_rule.rule if request.url_rule else "none",
        model="",
        status=str(response.status_code),
        method=request.method,
        path=request.path,
        client=caller.at(request.remote_addr or "-"),
        request_id=caller.request_id,
        bytes_in=request.content_length or 0,
        bytes_out=response.calculate_content_length() or 0,
        seconds=time.monotonic() - caller.began,
        reason=g.reason,
    )
    plain.gateway().observe_page(page, caller)
    return response


def _refusal(error: errors.GatewayError) -> Response:
    g.reason = str(error)
    return plain.flask_response(error_response(error))


def _ask_for_key(error: errors.Unauthenticated) -> Response:
    """In a browser by a page with a field for it."""
    response = _refusal(error)
    kinds = ["application/json", "text/html"]
    asked_by_hand = request.accept_mimetypes.best_match(kinds) == "text/html"
    if asked_by_hand and plain.gateway().settings.page == "on":
        problem = str(error) if error.was_shown else ""
        response.set_data(render_template("key.html", problem=problem, digest=page.static_digest()))
        response.content_type = "text/html; charset=utf-8"
        response.headers.update(page.HEADERS)
    return response


def _http_error(error: HTTPException) -> Response:
    """What no route took, and what Werkzeug refuses by itself, in the one shape of all errors."""
    if error.code in (404, 405) and request.path.lower().startswith("/v1/"):
        return _refusal(tfs.no_such_path(request.method, request.path))
    g.reason = f"{error.name}: {request.method} {request.path}"
    if error.code == 404 and request.method == "POST":
        g.reason += "; predictions are POST /v1/models/MODEL:predict and /v2/models/MODEL/infer"
    response = Response(error_body(g.reason), error.code, mimetype=JSON)
    for name, value in error.get_headers():
        if name not in ("Content-Type", "Content-Length"):
            response.headers[name] = value
    return response

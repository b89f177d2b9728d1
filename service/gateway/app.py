"""The gateway's application: everything is wired here, and nothing happens at import."""

import logging
import sys

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from service.gateway import errors
from service.gateway.error_responses import tfs_body
from service.gateway.model_server import ModelServer
from service.gateway.routes import docs, oip, ops, tfs
from service.gateway.routes.model_paths import CONVERTERS
from service.gateway.settings import Settings
from service.gateway.telemetry import Telemetry


def create_app(settings: Settings, model_server: ModelServer) -> Flask:
    """The WSGI application that answers from `model_server`."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.config["MAX_FORM_MEMORY_SIZE"] = settings.max_body_bytes
    app.url_map.merge_slashes = False
    app.url_map.converters |= CONVERTERS
    telemetry = Telemetry()
    app.extensions |= {"settings": settings, "model_server": model_server, "telemetry": telemetry}
    telemetry.attach(app)
    app.register_blueprint(tfs.routes)
    app.register_blueprint(docs.routes)
    app.register_blueprint(oip.routes)
    app.register_blueprint(ops.routes)
    app.register_error_handler(errors.GatewayError, tfs.error_response)
    app.register_error_handler(HTTPException, _http_error)
    return app


def from_environment() -> Flask:
    """The application that SLUICE_* describes; what gunicorn's workers call."""
    settings = Settings.from_environment()
    logging.basicConfig(
        stream=sys.stderr,
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    return create_app(
        settings,
        ModelServer(settings.model_server, settings.request_timeout_s, settings.metadata_ttl_s),
    )


def _http_error(error: HTTPException) -> Response:
    """What no route took, and what Werkzeug refuses by itself, in the one shape of all errors."""
    if error.code in (404, 405) and request.path.lower().startswith("/v1/"):
        return tfs.error_response(
            errors.MalformedRequest(f"Malformed request: {request.method} {request.path}")
        )
    return Response(
        tfs_body(f"{error.name}: {request.method} {request.path}"), error.code, mimetype=tfs.JSON
    )

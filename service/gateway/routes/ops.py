"""What an operator's machines ask: is the process alive, can it serve, how is it doing."""
from flask import Blueprint, Response, current_app, jsonify

from service.gateway import errors
from service.gateway.model_server import ModelServer
from service.gateway.settings import Settings
from service.gateway.telemetry import Telemetry

routes = Blueprint("ops", __name__)

PROBE_TIMEOUT_S = 2.0
# Whether this name is served does not matter: any answer shows that the model server is there.
_ANY_MODEL = "-"


@routes.get("/healthz")
def healthz() -> Response:
    """This process answers. A fault of the model server's is no reason to restart the gateway."""
    return jsonify(status="alive")


@routes.get("/readyz")
def readyz() -> tuple[Response, int]:
    """200 when a model is AVAILABLE at the model server (when it answers, where none is named)."""
    settings: Settings = current_app.extensions["settings"]
    server: ModelServer = current_app.extensions["model_server"]
    names = settings.model_names()
    try:
        available = {name: server.is_available(name, PROBE_TIMEOUT_S)
                     for name in names or [_ANY_MODEL]}
    except errors.ModelServerError as error:
        return jsonify(status="not ready", reason=str(error)), 503
    if not names:
        return jsonify(status="ready", reason="the model server answers; no model is named"), 200
    states = {name: "AVAILABLE" if ready else "not available" for name, ready in available.items()}
    if not any(available.values()):
        return jsonify(status="not ready", reason="no model is AVAILABLE", models=states), 503
    return jsonify(status="ready", models=states), 200


@routes.get("/metrics")
def metrics() -> Response:
    telemetry: Telemetry = current_app.extensions["telemetry"]
    body, content_type = telemetry.exposition()
    return Response(body, content_type=content_type)

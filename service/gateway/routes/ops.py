"""What an operator's machines ask: is the process alive, can it serve, how is it doing."""

from flask import Blueprint, Response, current_app, jsonify, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from service.gateway.predicting import model_server, settings
from service.gateway.readiness import readiness
from service.gateway.telemetry import Telemetry

routes = Blueprint("ops", __name__)


@routes.get("/")
def root() -> AnyResponse:
    """A browser is shown the docs; KServe's v1 client asks here whether the server is alive."""
    if request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html":
        return redirect(url_for("docs.index"))
    return jsonify(status="alive")


@routes.get("/healthz")
def healthz() -> Response:
    """This process answers. A fault of the model server's is no reason to restart the gateway."""
    return jsonify(status="alive")


@routes.get("/readyz")
def readyz() -> tuple[Response, int]:
    state = readiness(settings(), model_server())
    models = {
        name: "AVAILABLE" if available else "not available"
        for name, available in state.models.items()
    }
    verdict = "ready" if state.ready else "not ready"
    return jsonify(status=verdict, reason=state.reason, models=models), 200 if state.ready else 503


@routes.get("/metrics")
def metrics() -> Response:
    telemetry: Telemetry = current_app.extensions["telemetry"]
    body, content_type = telemetry.exposition()
    return Response(body, content_type=content_type)

"""What an operator's machines ask: is the process alive, can it serve, how is it doing."""

import orjson
from flask import Blueprint, Response, abort, jsonify, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from service.gateway.caller import Caller
from service.gateway.errors import NotFound
from service.gateway.http import HttpRequest, HttpResponse
from service.gateway.plain import gateway, runner
from service.gateway.predictions import Predictions
from service.gateway.readiness import Readiness, readiness
from service.gateway.routes.model_paths import model_paths
from service.gateway.views import PROBE
from sluice.wire.model_ref import ModelRef

routes = Blueprint("ops", __name__)
at_root = model_paths(routes, PROBE, "", ("",))


@routes.get("/")
def root() -> AnyResponse:
    """A browser is shown the models; KServe's v1 client asks here whether the server is alive."""
    if request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html":
        page = gateway().settings.page == "on"
        return redirect(url_for("page.index" if page else "docs.index"))
    return jsonify(status="alive")


@at_root("/healthz", "GET")
async def healthz(
    predictions: Predictions, _: ModelRef, request: HttpRequest, __: Caller
) -> HttpResponse:
    """This process answers. A fault of the model server's is no reason to restart the gateway."""
    _check_open(predictions, request)
    return HttpResponse(b'{"status":"alive"}')


@at_root("/readyz", "GET")
async def readyz(
    predictions: Predictions, _: ModelRef, request: HttpRequest, __: Caller
) -> HttpResponse:
    _check_open(predictions, request)
    state = await readiness(predictions)
    if predictions.settings.access_file:
        state = state.to_strangers()
    return HttpResponse(readiness_document(state), 200 if state.ready else 503)


@at_root("/v2/health/live", "GET")
async def live(_: Predictions, __: ModelRef, ___: HttpRequest, ____: Caller) -> HttpResponse:
    return HttpResponse(b'{"live":true}')


@at_root("/v2/health/ready", "GET")
async def ready(
    predictions: Predictions, _: ModelRef, __: HttpRequest, ___: Caller
) -> HttpResponse:
    state = await readiness(predictions)
    return HttpResponse(orjson.dumps({"ready": state.ready}), 200 if state.ready else 503)


@routes.get("/metrics")
def metrics() -> Response:
    if gateway().settings.public_metrics != "on":
        abort(404)
    runner().run(readiness(gateway().predictions))  # the versions' states as they are now
    body, content_type = gateway().telemetry.exposition()
    return Response(body, content_type=content_type)


def readiness_document(state: Readiness) -> bytes:
    """What /readyz answers, here and on the admin port."""
    models = {
        name: "AVAILABLE" if available else "not available"
        for name, available in state.models.items()
    }
    verdict = "ready" if state.ready else "not ready"
    return orjson.dumps({"status": verdict, "reason": state.reason, "models": models})


def _check_open(predictions: Predictions, request: HttpRequest) -> None:
    if predictions.settings.public_health != "on":
        raise NotFound(f"{request.path} is on the admin port alone (SLUICE_PUBLIC_HEALTH)")

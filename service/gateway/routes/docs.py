"""The gateway describes itself: an OpenAPI document and pages that need no other host."""

from flask import Blueprint, Response, jsonify, render_template, request

from service.gateway import errors
from service.gateway.curl import curl_line
from service.gateway.openapi import document
from service.gateway.plain import gateway, page_caller, runner
from service.gateway.signatures import Signatures
from sluice.wire.contract import ENCODED_SIGNATURE
from sluice.wire.model_ref import ModelRef

routes = Blueprint("docs", __name__)


@routes.get("/openapi.json")
def openapi() -> Response:
    return jsonify(document(_models(), request.host_url.rstrip("/")))


@routes.get("/docs")
def index() -> str:
    models = _models()
    return render_template(
        "docs.html",
        title="Sluice",
        model=None,
        models=models,
        document=document(models, request.host_url.rstrip("/")),
    )


@routes.get("/docs/<model>")
def page(model: str) -> str:
    signatures = _signatures(model)
    url = f"{request.host_url}v1/models/{model}"
    single_image = (
        ENCODED_SIGNATURE in signatures and len(signatures.get(ENCODED_SIGNATURE).inputs) == 1
    )
    return render_template(
        "docs.html",
        title=f"{model} · Sluice",
        model=model,
        curl=curl_line(url, signatures),
        single_image=single_image,
        signatures=[signatures.get(name) for name in signatures.names()],
    )


def _models() -> dict[str, Signatures]:
    """The named models that are AVAILABLE, by name."""
    found = {}
    for name in gateway().predictions.names(page_caller()):
        try:
            found[name] = _signatures(name)
        except errors.NotFound:
            continue
    return found


def _signatures(model: str) -> Signatures:
    predictions = gateway().predictions
    return runner().run(predictions.signatures(ModelRef(model), page_caller()))

"""The Open Inference Protocol v2 over HTTP, as KServe's and Triton's clients speak it."""

from collections.abc import Callable

from flask import Blueprint, Response, jsonify, request

from service.gateway.decode.images import check_content
from service.gateway.decode.oip import decode_infer, parse_json_length
from service.gateway.encode.oip import encode_infer, encode_metadata, encode_server
from service.gateway.predicting import model_server, read_request_body, settings, validated
from service.gateway.query import OipQuery
from service.gateway.readiness import readiness
from service.gateway.routes.model_paths import model_paths
from service.gateway.signature import DEFAULT_SIGNATURE, ModelSpec, Signatures
from sluice.wire.oip_tensors import JSON_LENGTH

routes = Blueprint("oip", __name__)

# The protocol lets a version be any string: here, a number or a label.
at_model = model_paths(
    routes, "/v2/models/<name>", ("", "/versions/<version:version>", "/versions/<label>")
)


@at_model("/infer", "POST")
def infer(model: ModelSpec) -> Response:
    query, inputs = validated(model, _decoder())
    prediction = model_server().predict(
        model, query.signature.name, inputs, [output.name for output in query.outputs]
    )
    body = encode_infer(prediction.outputs, prediction.version, model, query)
    if body.json_length is None:
        return Response(body.data, mimetype="application/json")
    return Response(
        body.data, mimetype="application/octet-stream", headers={JSON_LENGTH: str(body.json_length)}
    )


@at_model("", "GET")
def metadata(model: ModelSpec) -> Response:
    signature = (
        model_server().signatures(model).get(request.args.get("signature_name", DEFAULT_SIGNATURE))
    )
    versions = model_server().available_versions(model.name)
    return jsonify(encode_metadata(model, versions, signature))


@at_model("/ready", "GET")
def model_ready(model: ModelSpec) -> Response:
    """200 when the version takes requests; GetModelMetadata answers for no other."""
    model_server().metadata(model)
    return jsonify(name=model.name, ready=True)


@routes.get("/v2")
def server_metadata() -> Response:
    return jsonify(encode_server())


@routes.get("/v2/health/live")
def live() -> Response:
    return jsonify(live=True)


@routes.get("/v2/health/ready")
def ready() -> tuple[Response, int]:
    state = readiness(settings(), model_server())
    return jsonify(ready=state.ready), 200 if state.ready else 503


def _decoder() -> Callable[[Signatures], OipQuery]:
    body, length = read_request_body(), parse_json_length(request.headers.get(JSON_LENGTH))
    pixels = settings().max_image_pixels
    return lambda signatures: check_content(decode_infer(body, length, signatures), pixels)

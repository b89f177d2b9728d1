"""The Open Inference Protocol v2 over HTTP, as KServe's and Triton's clients speak it."""

from functools import partial

import orjson
from flask import Blueprint, Response, jsonify

from service.gateway.answer import Answer
from service.gateway.caller import Caller
from service.gateway.decode.oip import decode_index, decode_infer, parse_json_length
from service.gateway.encode.oip import (
    encode_index,
    encode_infer,
    encode_metadata,
    encode_server,
    encode_statistics,
)
from service.gateway.http import HttpRequest, HttpResponse
from service.gateway.predictions import Predictions
from service.gateway.query import OipQuery
from service.gateway.routes.model_paths import model_paths
from sluice.wire.contract import DEFAULT_SIGNATURE
from sluice.wire.model_ref import ModelRef
from sluice.wire.oip_tensors import JSON_LENGTH

routes = Blueprint("oip", __name__)

# The protocol lets a version be any string: here, a number or a label.
at_model = model_paths(
    routes, "oip", "/v2/models/<name>", ("", "/versions/<version:version>", "/versions/<label>")
)
at_root = model_paths(routes, "oip", "", ("",))
BINARY = "application/octet-stream"


@at_model("/infer", "POST")
async def infer(
    predictions: Predictions, model: ModelRef, request: HttpRequest, caller: Caller
) -> HttpResponse:
    json_length = parse_json_length(request.headers.get(JSON_LENGTH.lower()))
    decode = partial(decode_infer, request.body, json_length)
    query, answer = await predictions.infer(
        model, decode, caller, size=len(request.body), outputs=OipQuery.wanted
    )
    return await predictions.encoded(answer.outputs, partial(_encode, answer, model, query), caller)


@at_model("", "GET")
async def metadata(
    predictions: Predictions, model: ModelRef, request: HttpRequest, caller: Caller
) -> HttpResponse:
    name = request.arguments.get("signature_name", DEFAULT_SIGNATURE)
    signature = (await predictions.signatures(model, caller)).get(name)
    versions = await predictions.available_versions(model.name, caller)
    return HttpResponse(orjson.dumps(encode_metadata(model, versions, signature)))


@at_model("/ready", "GET")
async def model_ready(
    predictions: Predictions, model: ModelRef, _: HttpRequest, caller: Caller
) -> HttpResponse:
    """200 when the version takes requests; GetModelMetadata answers for no other."""
    await predictions.metadata(model, caller)
    return HttpResponse(orjson.dumps({"name": model.name, "ready": True}))


@at_root("/v2/repository/index", "GET", "POST")
async def repository_index(
    predictions: Predictions, _: ModelRef, request: HttpRequest, caller: Caller
) -> HttpResponse:
    """Triton's listing."""
    only_ready = decode_index(request.body)
    found = await predictions.listing(caller)
    return HttpResponse(orjson.dumps(encode_index(found, only_ready=only_ready)))


@at_root("/v2/models/stats", "GET")
@at_model("/stats", "GET")
async def statistics(
    predictions: Predictions, model: ModelRef, _: HttpRequest, caller: Caller
) -> HttpResponse:
    """Triton's statistics: of a model, or of all that are named. As there, this path is no model's:
    one that is named `stats` has its metadata at its version's path."""
    found = await predictions.statistics(model, caller)
    return HttpResponse(orjson.dumps(encode_statistics(found)))


@routes.get("/v2")
def server_metadata() -> Response:
    return jsonify(encode_server())


def _encode(answer: Answer, model: ModelRef, query: OipQuery) -> HttpResponse:
    body = encode_infer(answer.outputs, answer.version, model, query)
    if body.json_length is None:
        return HttpResponse(body.data)
    return HttpResponse(
        body.data, content_type=BINARY, headers={JSON_LENGTH: str(body.json_length)}
    )

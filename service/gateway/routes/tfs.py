"""TensorFlow Serving's REST API, and files (images, numpy's) where it has no answer."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import orjson
from flask import Blueprint, Response
from flask import request as flask_request
from google.protobuf import json_format
from google.protobuf.message import Message

from service.gateway import errors
from service.gateway.caller import Caller
from service.gateway.decode.examples import decode_examples
from service.gateway.decode.images import ImageOptions, decode_form, decode_image, resize_option
from service.gateway.decode.magic import FORM, IMAGE, NPY, NPZ, kind_of
from service.gateway.decode.numpy_files import decode_npy, decode_npz
from service.gateway.decode.slips import check_whole
from service.gateway.decode.tfs_json import decode_predict
from service.gateway.encode.labels import keep_best
from service.gateway.encode.numpy_files import encode_npy, encode_npz
from service.gateway.encode.overlay import PNG, encode_overlay
from service.gateway.encode.tfs_json import (
    encode_classifications,
    encode_predict,
    encode_regressions,
)
from service.gateway.explaining import NOT_ASKED, explain, explainable
from service.gateway.http import JSON, HttpRequest, HttpResponse
from service.gateway.predictions import Predictions
from service.gateway.query import TfsQuery
from service.gateway.routes.forms import read_form
from service.gateway.routes.model_paths import model_paths
from service.gateway.signatures import Signatures
from service.gateway.threads import LARGE
from sluice.wire.contract import State
from sluice.wire.model_ref import ModelRef
from sluice.wire.protos import serving_pb2 as serving
from sluice.wire.tensors import Array

routes = Blueprint("tfs", __name__)
at_model = model_paths(
    routes,
    "tfs",
    "/v1/models/<model:name>",
    ("", "/versions/<version:version>", "/labels/<model:label>"),
)

at_root = model_paths(routes, "tfs", "", ("",))

Decode = Callable[[Signatures], TfsQuery]


class QueryArguments(NamedTuple):
    """What may stand behind the `?` of a prediction; TensorFlow Serving knows none of it."""

    signature_name: str | None = None
    resize: str = "stretch"
    top_k: int = 0  # 0: all that the model gives
    explain: str = NOT_ASKED


@at_model(":predict", "POST")
async def predict(
    predictions: Predictions, model: ModelRef, request: HttpRequest, caller: Caller
) -> HttpResponse:
    arguments = _arguments(request)
    decode, size = _decode(predictions, request, arguments)
    asked = arguments.explain
    if asked != NOT_ASKED:
        decode = explainable(decode)
    query, answer = await predictions.infer(model, decode, caller, size=size)
    outputs = keep_best(answer.outputs, arguments.top_k) if arguments.top_k else answer.outputs
    if asked == NOT_ASKED:
        encode = partial(_encode, outputs, query, request)
        return await predictions.encoded(outputs, encode, caller)
    explained, why = await explain(predictions, model, query, answer, asked, caller)
    return await predictions.aside(_encode_why, outputs, query, explained, why.outputs, request)


@at_model(":classify", "POST")
async def classify(
    predictions: Predictions, model: ModelRef, request: HttpRequest, caller: Caller
) -> HttpResponse:
    query = decode_examples(request.body)
    return HttpResponse(encode_classifications(await predictions.classify(model, query, caller)))


@at_model(":regress", "POST")
async def regress(
    predictions: Predictions, model: ModelRef, request: HttpRequest, caller: Caller
) -> HttpResponse:
    query = decode_examples(request.body)
    return HttpResponse(encode_regressions(await predictions.regress(model, query, caller)))


@at_model("", "GET")
async def status(
    predictions: Predictions, model: ModelRef, _: HttpRequest, caller: Caller
) -> HttpResponse:
    versions = await predictions.status(model, caller)
    return _json(_plain(serving.GetModelStatusResponse(model_version_status=versions)))


@at_model("/metadata", "GET")
async def metadata(
    predictions: Predictions, model: ModelRef, _: HttpRequest, caller: Caller
) -> HttpResponse:
    reply = await predictions.metadata(model, caller)
    signatures = serving.SignatureDefMap()
    reply.metadata["signature_def"].Unpack(signatures)
    spec = _plain(reply.model_spec) | {"version": str(reply.model_spec.version.value)}
    return _json({"model_spec": spec, "metadata": {"signature_def": _plain(signatures)}})


@at_root("/v1/models", "GET")
async def list_models(
    predictions: Predictions, _: ModelRef, __: HttpRequest, caller: Caller
) -> HttpResponse:
    """What TensorFlow Serving's API cannot tell: the named models, with their versions' states."""
    models = [
        {
            "name": name,
            "versions": [
                {"version": str(each.version), "state": State.Name(each.state)} for each in versions
            ],
        }
        for name, versions in (await predictions.listing(caller)).items()
    ]
    return _json({"models": models})


@routes.route("/v1/<path:rest>", methods=["GET", "POST", "PUT", "DELETE", "PATCH"])
def malformed(rest: str) -> Response:
    raise no_such_path(flask_request.method, f"/v1/{rest}")


def no_such_path(method: str, path: str) -> errors.MalformedRequest:
    return errors.MalformedRequest(
        f"Malformed request: {method} {path}; expected POST /v1/models/MODEL"
        "[/versions/N|/labels/L]:predict, or GET the same path with /metadata or nothing behind it"
    )


def _decode(
    predictions: Predictions, request: HttpRequest, arguments: QueryArguments
) -> tuple[Decode, int]:
    """How this request's body is read, and the bytes of work that this is."""
    name, body = arguments.signature_name, request.body
    kind = kind_of(body, request.content_type)
    settings = predictions.settings
    images = ImageOptions(settings.max_image_pixels, name, arguments.resize)
    # Pictures and archives are more work than their size tells.
    work = max(len(body), LARGE + 1)
    if kind == FORM:
        return partial(_decode_form, request, options=images), work
    if kind == IMAGE:
        check_whole(body)
        return partial(decode_image, body, options=images), work
    if kind == NPY:
        return partial(decode_npy, body, signature_name=name), len(body)
    if kind == NPZ:
        limit = settings.max_body_bytes
        return partial(decode_npz, body, limit_bytes=limit, signature_name=name), work
    if name is not None:
        raise errors.MalformedRequest("?signature_name= goes with a file; in JSON it is a key")
    return partial(decode_predict, body), len(body)


def _decode_form(request: HttpRequest, signatures: Signatures, options: ImageOptions) -> TfsQuery:
    files, texts = read_form(request)
    return decode_form(files, texts, signatures, options)


def _arguments(request: HttpRequest) -> QueryArguments:
    if not request.query:
        return QueryArguments()
    given = request.arguments
    unknown = set(given) - set(QueryArguments._fields)
    if unknown:
        raise errors.MalformedRequest(
            f"Malformed request: the query argument {', '.join(sorted(unknown))} is not known"
            f"{errors.did_you_mean(min(unknown), QueryArguments._fields)}"
        )
    top_k = given.get("top_k", "0")
    if not (top_k.isascii() and top_k.isdigit() and len(top_k) < 9):
        raise errors.MalformedRequest(f"?top_k={top_k}: expected a number of labels")
    return QueryArguments(
        given.get("signature_name"),
        resize_option(given.get("resize", "stretch")),
        int(top_k),
        given.get("explain", NOT_ASKED),
    )


def _encode(outputs: dict[str, Array], query: TfsQuery, request: HttpRequest) -> HttpResponse:
    """In the form that the client accepts best; JSON where it names none of the others."""
    kind = request.best_of((JSON, NPY, NPZ))
    if kind == NPY:
        return HttpResponse(encode_npy(outputs), content_type=NPY)
    if kind == NPZ:
        return HttpResponse(encode_npz(outputs), content_type=NPZ)
    return HttpResponse(encode_predict(outputs, query))


def _encode_why(
    outputs: dict[str, Array],
    query: TfsQuery,
    explained: TfsQuery,
    why: dict[str, Array],
    request: HttpRequest,
) -> HttpResponse:
    """The same with the explanation, which was answered to `explained`."""
    kind = request.best_of((JSON, NPY, NPZ, PNG))
    if kind == PNG:
        return HttpResponse(encode_overlay(explained, why), content_type=PNG)
    if kind == JSON:
        return HttpResponse(encode_predict(outputs, query, why))
    beside = {f"explain_{name}": array for name, array in why.items()}
    return _encode(outputs | beside, query, request)


def _json(document: object) -> HttpResponse:
    return HttpResponse(orjson.dumps(document))


def _plain(message: Message) -> dict[str, object]:
    """A message as TensorFlow Serving prints it: every field, original names, int64 as strings."""
    plain: dict[str, object] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return plain

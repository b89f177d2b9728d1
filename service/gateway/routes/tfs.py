"""TensorFlow Serving's REST API, and images where it has no answer."""
from collections.abc import Callable

from flask import Blueprint, Response, current_app, request
from google.protobuf import json_format
from google.protobuf.message import Message
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.routing import BaseConverter

from service.gateway import error_responses, errors
from service.gateway.body import read_body
from service.gateway.decode.examples import decode_examples
from service.gateway.decode.images import check_images, decode_form, decode_image
from service.gateway.decode.tfs_json import decode_predict
from service.gateway.encode.tfs_json import (
    encode_classifications,
    encode_predict,
    encode_regressions,
)
from service.gateway.model_server import ModelServer
from service.gateway.query import Query
from service.gateway.settings import Settings
from service.gateway.signature import ModelSpec, Signatures
from service.protos import serving_pb2 as serving
from service.tensors import Array

routes = Blueprint("tfs", __name__)

SIGNATURES_MAY_BE_STALE_S = 1.0
JSON = "application/json"
Decoder = Callable[[Signatures], Query]


class ModelName(BaseConverter):
    """A path segment without the colon that starts the verb."""

    regex = r"[^/:]+"


class Version(BaseConverter):
    """A version number; unlike werkzeug's `int` it needs no limit of digits to stay an int64."""

    regex = r"\d{1,18}"

    def to_python(self, value: str) -> int:
        return int(value)


def for_each_model_path(suffix: str, method: str) -> Callable[[Callable[[ModelSpec], Response]],
                                                              Callable[[ModelSpec], Response]]:
    """Register a view of a ModelSpec under the plain, the version and the label path."""
    def register(view: Callable[[ModelSpec], Response]) -> Callable[[ModelSpec], Response]:
        def endpoint(name: str, version: int | None = None, label: str | None = None) -> Response:
            return view(ModelSpec(name, version, label))

        for place in ("", "/versions/<version:version>", "/labels/<model:label>"):
            path = f"/v1/models/<model:name>{place}{suffix}"
            routes.add_url_rule(path, f"{view.__name__}{place}", endpoint, methods=[method])
        return view
    return register


@for_each_model_path(":predict", "POST")
def predict(model: ModelSpec) -> Response:
    server, decode = _model_server(), _decoder()
    query, inputs = _validated(server, model, decode)
    outputs = server.predict(model, query.signature.name, inputs)
    return Response(encode_predict(outputs, query), mimetype=JSON)


@for_each_model_path(":classify", "POST")
def classify(model: ModelSpec) -> Response:
    result = _model_server().classify(model, decode_examples(_body()))
    return Response(encode_classifications(result), mimetype=JSON)


@for_each_model_path(":regress", "POST")
def regress(model: ModelSpec) -> Response:
    result = _model_server().regress(model, decode_examples(_body()))
    return Response(encode_regressions(result), mimetype=JSON)


@for_each_model_path("", "GET")
def status(model: ModelSpec) -> Response:
    if model.label is not None:  # GetModelStatus passes an unknown label over; this does not
        _model_server().metadata(model)
    reply = serving.GetModelStatusResponse(model_version_status=_model_server().status(model))
    return _proto_response(reply)


@for_each_model_path("/metadata", "GET")
def metadata(model: ModelSpec) -> Response:
    reply = _model_server().metadata(model)
    signatures = serving.SignatureDefMap()
    reply.metadata["signature_def"].Unpack(signatures)
    return _json_response({"model_spec": _plain(reply.model_spec) | {
                               "version": str(reply.model_spec.version.value)},
                           "metadata": {"signature_def": _plain(signatures)}})


@routes.get("/v1/models")
def no_model() -> Response:
    raise errors.MalformedRequest("Missing model name in request: GET /v1/models/MODEL")


@routes.route("/v1/<path:rest>", methods=["GET", "POST", "PUT", "DELETE", "PATCH"])
def malformed(rest: str) -> Response:
    raise errors.MalformedRequest(
        f"Malformed request: {request.method} /v1/{rest}; expected POST /v1/models/MODEL"
        "[/versions/N|/labels/L]:predict, or GET the same path with /metadata or nothing behind it")


@routes.errorhandler(errors.GatewayError)
def error(error: errors.GatewayError) -> Response:
    return error_response(error)


def error_response(error: errors.GatewayError) -> Response:
    return Response(error_responses.tfs_body(str(error)), error_responses.status_of(error),
                    mimetype=JSON)


def _validated(server: ModelServer, model: ModelSpec, decode: Decoder
               ) -> tuple[Query, dict[str, Array]]:
    """The query and its inputs, held against the signature.

    Remembered signatures may be those of a version that was replaced: they may let a request
    pass, but only fresh ones turn it away.
    """
    signatures = server.signatures(model)
    try:
        query = decode(signatures)
        return query, query.signature.validate(query.inputs)
    except errors.RequestError:
        fresh = server.signatures(model, max_age_s=SIGNATURES_MAY_BE_STALE_S)
        if fresh is signatures:
            raise
        query = decode(fresh)
        return query, query.signature.validate(query.inputs)


def _decoder() -> Decoder:
    """How this request's body is read, by its content type; what is no image or form is JSON,
    as curl's `-d` names no JSON either."""
    settings: Settings = current_app.extensions["settings"]
    name, kind = _signature_argument(), request.mimetype
    if kind == "multipart/form-data":
        return _form_decoder(settings, name)
    body = _body()
    if kind.startswith("image/"):
        return lambda signatures: decode_image(body, signatures, settings.max_image_pixels, name)
    if name is not None:
        raise errors.MalformedRequest("?signature_name= goes with an image; in JSON it is a key")
    return lambda signatures: check_images(decode_predict(body, signatures),
                                           settings.max_image_pixels)


def _form_decoder(settings: Settings, name: str | None) -> Decoder:
    try:
        files = {field: [file.read() for file in request.files.getlist(field)]
                 for field in request.files}
        texts = {field: request.form.getlist(field) for field in request.form}
    except RequestEntityTooLarge:
        raise errors.PayloadTooLarge(settings.max_body_bytes) from None
    return lambda signatures: decode_form(files, texts, signatures, settings.max_image_pixels, name)


def _signature_argument() -> str | None:
    unknown = set(request.args) - {"signature_name"}
    if unknown:
        raise errors.MalformedRequest(
            f"Malformed request: the query argument {', '.join(sorted(unknown))} is not known")
    return request.args.get("signature_name")


def _body() -> bytes:
    settings: Settings = current_app.extensions["settings"]
    return read_body(request, settings.max_body_bytes)


def _model_server() -> ModelServer:
    server: ModelServer = current_app.extensions["model_server"]
    return server


def _proto_response(message: Message) -> Response:
    return _json_response(_plain(message))


def _json_response(document: dict[str, object]) -> Response:
    return Response(current_app.json.dumps(document), mimetype=JSON)


def _plain(message: Message) -> dict[str, object]:
    """A message as TensorFlow Serving prints it: every field, original names, int64 as strings."""
    plain: dict[str, object] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    return plain

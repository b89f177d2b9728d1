"""TensorFlow Serving's REST API, and images where it has no answer."""
from collections.abc import Callable

from flask import Blueprint, Response, current_app, request
from google.protobuf import json_format
from google.protobuf.message import Message
from werkzeug.exceptions import RequestEntityTooLarge

from service.gateway import error_responses, errors
from service.gateway.decode.examples import decode_examples
from service.gateway.decode.images import check_images, decode_form, decode_image
from service.gateway.decode.tfs_json import decode_predict
from service.gateway.encode.tfs_json import (
    encode_classifications,
    encode_predict,
    encode_regressions,
)
from service.gateway.predicting import model_server, read_request_body, settings, validated
from service.gateway.query import TfsQuery
from service.gateway.routes.model_paths import model_paths
from service.gateway.signature import ModelSpec, Signatures
from service.protos import serving_pb2 as serving

routes = Blueprint("tfs", __name__)

JSON = "application/json"
Decoder = Callable[[Signatures], TfsQuery]


at_model = model_paths(routes, "/v1/models/<model:name>",
                       ("", "/versions/<version:version>", "/labels/<model:label>"))


@at_model(":predict", "POST")
def predict(model: ModelSpec) -> Response:
    query, inputs = validated(model, _decoder())
    prediction = model_server().predict(model, query.signature.name, inputs)
    return Response(encode_predict(prediction.outputs, query), mimetype=JSON)


@at_model(":classify", "POST")
def classify(model: ModelSpec) -> Response:
    result = model_server().classify(model, decode_examples(read_request_body()))
    return Response(encode_classifications(result), mimetype=JSON)


@at_model(":regress", "POST")
def regress(model: ModelSpec) -> Response:
    result = model_server().regress(model, decode_examples(read_request_body()))
    return Response(encode_regressions(result), mimetype=JSON)


@at_model("", "GET")
def status(model: ModelSpec) -> Response:
    if model.label is not None:  # GetModelStatus passes an unknown label over; this does not
        model_server().metadata(model)
    reply = serving.GetModelStatusResponse(model_version_status=model_server().status(model))
    return _proto_response(reply)


@at_model("/metadata", "GET")
def metadata(model: ModelSpec) -> Response:
    reply = model_server().metadata(model)
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


def error_response(error: errors.GatewayError) -> Response:
    return Response(error_responses.tfs_body(str(error)), error_responses.status_of(error),
                    mimetype=JSON)


def _decoder() -> Decoder:
    """How this request's body is read, by its content type; what is no image or form is JSON,
    as curl's `-d` names no JSON either."""
    name, kind, pixels = _signature_argument(), request.mimetype, settings().max_image_pixels
    if kind == "multipart/form-data":
        return _form_decoder(name, pixels)
    body = read_request_body()
    if kind.startswith("image/"):
        return lambda signatures: decode_image(body, signatures, pixels, name)
    if name is not None:
        raise errors.MalformedRequest("?signature_name= goes with an image; in JSON it is a key")
    return lambda signatures: check_images(decode_predict(body, signatures), pixels)


def _form_decoder(name: str | None, pixels: int) -> Decoder:
    try:
        files = {field: [file.read() for file in request.files.getlist(field)]
                 for field in request.files}
        texts = {field: request.form.getlist(field) for field in request.form}
    except RequestEntityTooLarge:
        raise errors.PayloadTooLarge(settings().max_body_bytes) from None
    return lambda signatures: decode_form(files, texts, signatures, pixels, name)


def _signature_argument() -> str | None:
    unknown = set(request.args) - {"signature_name"}
    if unknown:
        raise errors.MalformedRequest(
            f"Malformed request: the query argument {', '.join(sorted(unknown))} is not known")
    return request.args.get("signature_name")


def _proto_response(message: Message) -> Response:
    return _json_response(_plain(message))


def _json_response(document: dict[str, object]) -> Response:
    return Response(current_app.json.dumps(document), mimetype=JSON)


def _plain(message: Message) -> dict[str, object]:
    """A message as TensorFlow Serving prints it: every field, original names, int64 as strings."""
    plain: dict[str, object] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    return plain

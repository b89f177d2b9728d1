"""TensorFlow Serving's REST API, and files (images, numpy's) where it has no answer."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from flask import Blueprint, Response, current_app, request
from google.protobuf import json_format
from google.protobuf.message import Message
from werkzeug.exceptions import RequestEntityTooLarge

from service.gateway import error_responses, errors
from service.gateway.decode.examples import decode_examples
from service.gateway.decode.images import (
    ImageOptions,
    check_content,
    decode_form,
    decode_image,
    resize_option,
)
from service.gateway.decode.numpy_files import NPY, NPZ, decode_npy, decode_npz
from service.gateway.decode.tfs_json import decode_predict
from service.gateway.encode.labels import keep_best
from service.gateway.encode.numpy_files import encode_npy, encode_npz
from service.gateway.encode.tfs_json import (
    encode_classifications,
    encode_predict,
    encode_regressions,
)
from service.gateway.predicting import model_server, read_request_body, settings, validated
from service.gateway.query import TfsQuery
from service.gateway.routes.model_paths import model_paths
from service.gateway.signature import ModelSpec, Signatures
from sluice.wire.protos import serving_pb2 as serving
from sluice.wire.tensors import Array

routes = Blueprint("tfs", __name__)
at_model = model_paths(
    routes, "/v1/models/<model:name>", ("", "/versions/<version:version>", "/labels/<model:label>")
)

JSON = "application/json"
Decoder = Callable[[Signatures], TfsQuery]


class Arguments(NamedTuple):
    """What may stand behind the `?` of a prediction; TensorFlow Serving knows none of it."""

    signature_name: str | None = None
    resize: str = "stretch"
    top_k: int = 0  # 0: all that the model gives


@at_model(":predict", "POST")
def predict(model: ModelSpec) -> Response:
    arguments = _arguments()
    query, inputs = validated(model, _decoder(arguments))
    outputs = model_server().predict(model, query.signature.name, inputs).outputs
    if arguments.top_k:
        outputs = keep_best(outputs, arguments.top_k)
    return _encoded(outputs, query)


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
    return _json_response(_plain(reply))


@at_model("/metadata", "GET")
def metadata(model: ModelSpec) -> Response:
    reply = model_server().metadata(model)
    signatures = serving.SignatureDefMap()
    reply.metadata["signature_def"].Unpack(signatures)
    return _json_response(
        {
            "model_spec": _plain(reply.model_spec)
            | {"version": str(reply.model_spec.version.value)},
            "metadata": {"signature_def": _plain(signatures)},
        }
    )


@routes.get("/v1/models")
def no_model() -> Response:
    raise errors.MalformedRequest("Missing model name in request: GET /v1/models/MODEL")


@routes.route("/v1/<path:rest>", methods=["GET", "POST", "PUT", "DELETE", "PATCH"])
def malformed(rest: str) -> Response:
    raise errors.MalformedRequest(
        f"Malformed request: {request.method} /v1/{rest}; expected POST /v1/models/MODEL"
        "[/versions/N|/labels/L]:predict, or GET the same path with /metadata or nothing behind it"
    )


def error_response(error: errors.GatewayError) -> Response:
    return Response(
        error_responses.tfs_body(str(error)), error_responses.status_of(error), mimetype=JSON
    )


def _decoder(arguments: Arguments) -> Decoder:
    """How this request's body is read, by its content type; what is no image, form or numpy file
    is JSON, as curl's `-d` names no JSON either."""
    kind, name = request.mimetype, arguments.signature_name
    images = ImageOptions(settings().max_image_pixels, name, arguments.resize)
    if kind == "multipart/form-data":
        return _form_decoder(images)
    body = read_request_body()
    if kind.startswith("image/"):
        return partial(decode_image, body, options=images)
    if kind == NPY:
        return partial(decode_npy, body, signature_name=name)
    if kind == NPZ:
        return partial(decode_npz, body, limit_bytes=settings().max_body_bytes, signature_name=name)
    if name is not None:
        raise errors.MalformedRequest("?signature_name= goes with a file; in JSON it is a key")
    return lambda signatures: check_content(decode_predict(body, signatures), images.max_pixels)


def _form_decoder(images: ImageOptions) -> Decoder:
    try:
        # A part of a form may have no name, which Werkzeug gives as None.
        files = {
            field or "": [file.read() for file in request.files.getlist(field)]
            for field in request.files
        }
        texts = {field or "": request.form.getlist(field) for field in request.form}
    except RequestEntityTooLarge:
        raise errors.PayloadTooLarge(settings().max_body_bytes) from None
    return partial(decode_form, files, texts, options=images)


def _arguments() -> Arguments:
    unknown = set(request.args) - set(Arguments._fields)
    if unknown:
        raise errors.MalformedRequest(
            f"Malformed request: the query argument {', '.join(sorted(unknown))} is not known"
            f"{errors.did_you_mean(min(unknown), Arguments._fields)}"
        )
    top_k = request.args.get("top_k", "0")
    if not (top_k.isascii() and top_k.isdigit() and len(top_k) < 9):
        raise errors.MalformedRequest(f"?top_k={top_k}: expected a number of labels")
    return Arguments(
        request.args.get("signature_name"),
        resize_option(request.args.get("resize", "stretch")),
        int(top_k),
    )


def _encoded(outputs: dict[str, Array], query: TfsQuery) -> Response:
    """In the form that the client accepts best; JSON where it names none of the others."""
    kind = request.accept_mimetypes.best_match([JSON, NPY, NPZ], JSON)
    if kind == NPY:
        return Response(encode_npy(outputs), mimetype=NPY)
    if kind == NPZ:
        return Response(encode_npz(outputs), mimetype=NPZ)
    return Response(encode_predict(outputs, query), mimetype=JSON)


def _json_response(document: dict[str, object]) -> Response:
    return Response(current_app.json.dumps(document), mimetype=JSON)


def _plain(message: Message) -> dict[str, object]:
    """A message as TensorFlow Serving prints it: every field, original names, int64 as strings."""
    plain: dict[str, object] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return plain

"""The OpenAPI 3.1 document of this gateway, made from the signatures of the served models."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from service.gateway import schemas
from service.gateway.decode.magic import NPY, NPZ
from service.gateway.encode.overlay import PNG
from service.gateway.signatures import Signatures
from sluice.wire.contract import ENCODED_SIGNATURE, EXPLAINED_BY
from sluice.wire.signature import Signature

Json = dict[str, Any]

IMAGES = ("image/png", "image/jpeg", "image/gif", "image/bmp", "image/webp")
BINARY: Json = {"type": "string", "contentMediaType": "application/octet-stream"}
ERROR: Json = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
KEYS: Json = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
ERRORS = {
    "400": "The body, a name, a dtype, a shape or a value does not fit.",
    "401": "No key, or one that does not hold, where keys are asked for.",
    "403": "The key is not for this model or operation.",
    "404": "No such model or version.",
    "406": "No form that the client accepts can carry the outputs.",
    "408": "The rest of the body did not come in time.",
    "413": "The body, or an image in it, is over the limit.",
    "415": "A content encoding that is not read, or an image for a model that takes none.",
    "429": "The model server has too much to do; Retry-After says when to come again.",
    "500": "A fault of the model server's own.",
    "501": "The model server does not offer what was asked.",
    "503": "The gateway has no place for another request, or no model server can be reached, or "
    "the model is loading; Retry-After says when to come again.",
    "504": "No answer within the time that the request had.",
}

_VERSION = "X-Sluice-Version"
_PINNED: Json = {
    "name": _VERSION,
    "in": "header",
    "description": "which version answers: its number, or while one is rolled out live or next",
    "schema": {"type": "string", "pattern": "^([0-9]{1,18}|live|next)$"},
}
_ANSWERED_BY: Json = {
    _VERSION: {"description": "The version that answered.", "schema": {"type": "string"}}
}
_LABELS = "labels to answer with"
_EXPLAINED = (
    "explanations beside the predictions, or with Accept: image/png the picture under its "
    "heatmap: true for the best class, or a class by its index or label (HEAD:CLASS where several "
    "heads name classes)"
)
_INDEX_REQUEST: Json = {
    "content": {
        "application/json": {
            "schema": {"type": "object", "properties": {"ready": {"type": "boolean"}}}
        }
    }
}


def document(models: Mapping[str, Signatures], url: str) -> Json:
    """The whole document for models by name, as reached under `url`."""
    paths: Json = dict(_operations())
    for name, signatures in models.items():
        paths |= _model_paths(name, signatures)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Sluice",
            "version": version("sluice"),
            "description": "Predictions of Keras models, over TensorFlow Serving's REST "
            "API and the Open Inference Protocol.",
        },
        "servers": [{"url": url}],
        "paths": paths,
        "components": {"schemas": {"Error": ERROR}, "securitySchemes": KEYS},
        "security": [{}, *({name: []} for name in KEYS)],  # where the gateway asks for keys
    }


def _operations() -> Json:
    plain = _answer("application/json", {"type": "object"})
    ready = {"200": plain, "503": plain}
    listed = {"200": plain} | _errors("401", "403", "429", "500", "503", "504")
    index = listed | {"200": _answer("application/json", {"type": "array"})}
    return {
        "/healthz": {"get": _operation("The process is alive", {"200": plain})},
        "/readyz": {"get": _operation("A model is AVAILABLE", ready)},
        "/metrics": {
            "get": _operation(
                "Prometheus metrics", {"200": _answer("text/plain", {"type": "string"})}
            )
        },
        "/v1/models": {"get": _operation("The named models, their versions and states", listed)},
        "/v2": {"get": _operation("The server", {"200": plain})},
        "/v2/models/stats": {"get": _operation("Triton's statistics of all named models", listed)},
        "/v2/repository/index": {
            "get": _operation("The named models, as Triton lists them", index),
            "post": _operation("The same, or those that are ready alone", index | _errors("400"))
            | {"requestBody": _INDEX_REQUEST},
        },
        "/v2/health/live": {"get": _operation("The process is alive", {"200": plain})},
        "/v2/health/ready": {"get": _operation("A model is AVAILABLE", ready)},
    }


def _model_paths(name: str, signatures: Signatures) -> Json:
    errors = _errors("401", "403", "404", "429", "500", "501", "503", "504")
    plain = {"200": _answer("application/json", {"type": "object"})} | errors
    return {
        f"/v1/models/{name}": {"get": _operation("Versions and their states", plain, name)},
        f"/v1/models/{name}/metadata": {"get": _operation("Signatures", plain, name)},
        f"/v1/models/{name}:predict": {"post": _predict(name, signatures)},
        f"/v2/models/{name}": {"get": _operation("Inputs and outputs", plain, name)},
        f"/v2/models/{name}/ready": {"get": _operation("The model takes requests", plain, name)},
        f"/v2/models/{name}/stats": {"get": _operation("Triton's statistics", plain, name)},
        f"/v2/models/{name}/infer": {"post": _infer(name, signatures)},
    }


def _predict(name: str, signatures: Signatures) -> Json:
    every = [signatures.get(each) for each in signatures.names()]
    request: Json = {
        "application/json": {
            "schema": {"anyOf": [schemas.predict_request(signature) for signature in every]}
        }
    }
    response: Json = {
        "application/json": {
            "schema": {
                "anyOf": [
                    schemas.predict_response(signature, _why(signature, signatures))
                    for signature in every
                ]
            }
        }
    }
    response |= {NPY: {"schema": BINARY}, NPZ: {"schema": BINARY}}
    request |= {NPY: {"schema": BINARY}, NPZ: {"schema": BINARY}}
    parameters: list[Json] = [_PINNED]
    if ENCODED_SIGNATURE in signatures:
        request |= _files(signatures.get(ENCODED_SIGNATURE))
        parameters.append(_argument("top_k", _LABELS, {"type": "integer", "minimum": 1}))
    if any(_why(signature, signatures) for signature in every):
        response |= {PNG: {"schema": BINARY}}
        parameters.append(_argument("explain", _EXPLAINED, {"type": "string"}))
    return _operation(
        "Predict, as TensorFlow Serving's REST API or from files",
        {"200": _outputs(response), **_errors(*ERRORS)},
        name,
    ) | {"parameters": parameters, "requestBody": {"required": True, "content": request}}


def _argument(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _why(signature: Signature, signatures: Signatures) -> Signature | None:
    """The signature that explains what another answers, where the model has one."""
    name = EXPLAINED_BY.get(signature.name)
    return signatures.get(name) if name and name in signatures else None


def _files(encoded: Signature) -> Json:
    """Image files: as the body for a single input, as fields of a form for any number."""
    fields = {
        name: {"type": "array", "items": BINARY} if spec.is_string else {"type": "string"}
        for name, spec in encoded.inputs.items()
    }
    form = {
        "multipart/form-data": {
            "schema": {"type": "object", "properties": fields, "required": sorted(fields)}
        }
    }
    single = {kind: {"schema": BINARY} for kind in IMAGES} if len(fields) == 1 else {}
    return form | single


def _infer(name: str, signatures: Signatures) -> Json:
    tensor = {
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"type": "string"},
            "datatype": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "data": {"type": "array"},
            "parameters": {"type": "object"},
        },
    }
    request = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            "inputs": {"type": "array", "items": tensor},
            "outputs": {"type": "array", "items": {"type": "object", "required": ["name"]}},
        },
    }
    response = {
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {"outputs": {"type": "array", "items": tensor}},
    }
    content = {
        "application/json": {"schema": response},
        "application/octet-stream": {"schema": BINARY},
    }
    takes = "; ".join(
        f"{each}: {', '.join(map(str, signatures.get(each).inputs.values()))}"
        for each in signatures.names()
    )
    return _operation(
        "Infer, as the Open Inference Protocol v2",
        {"200": _outputs(content), **_errors(*ERRORS)},
        name,
    ) | {
        "parameters": [_PINNED],
        "description": takes,
        "requestBody": {"required": True, "content": {"application/json": {"schema": request}}},
    }


def _operation(summary: str, responses: Json, tag: str = "server") -> Json:
    return {"summary": summary, "tags": [tag], "responses": responses}


def _outputs(content: Json) -> Json:
    return {"description": "The outputs.", "headers": _ANSWERED_BY, "content": content}


def _answer(kind: str, schema: Json) -> Json:
    return {"description": "The answer.", "content": {kind: {"schema": schema}}}


def _errors(*statuses: str) -> Json:
    return {
        status: {
            "description": ERRORS[status],
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
        for status in statuses
    }

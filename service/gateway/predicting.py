"""What the dialects' handlers share: this request's server, settings and body, and the step from a
body to inputs that fit."""
from collections.abc import Callable
from typing import TypeVar

from flask import current_app, request

from service.gateway import errors
from service.gateway.body import read_body
from service.gateway.model_server import ModelServer
from service.gateway.query import Query
from service.gateway.settings import Settings
from service.gateway.signature import ModelSpec, Signatures
from service.tensors import Array

AnyQuery = TypeVar("AnyQuery", bound=Query)
SIGNATURES_MAY_BE_STALE_S = 1.0


def model_server() -> ModelServer:
    server: ModelServer = current_app.extensions["model_server"]
    return server


def settings() -> Settings:
    current: Settings = current_app.extensions["settings"]
    return current


def read_request_body() -> bytes:
    return read_body(request, settings().max_body_bytes)


def validated(model: ModelSpec, decode: Callable[[Signatures], AnyQuery]
              ) -> tuple[AnyQuery, dict[str, Array]]:
    """The query and its inputs, held against the signature.

    Remembered signatures may be those of a version that was replaced: they may let a request
    pass, but only fresh ones turn it away.
    """
    signatures = model_server().signatures(model)
    try:
        return _decode_and_validate(decode, signatures)
    except errors.RequestError:
        fresh = model_server().signatures(model, max_age_s=SIGNATURES_MAY_BE_STALE_S)
        if fresh is signatures:
            raise
        return _decode_and_validate(decode, fresh)


def _decode_and_validate(decode: Callable[[Signatures], AnyQuery], signatures: Signatures
                         ) -> tuple[AnyQuery, dict[str, Array]]:
    query = decode(signatures)
    return query, query.signature.validate(query.inputs)

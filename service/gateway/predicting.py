"""What the dialects' handlers share: this request's server, settings and body, and the step from a
body to inputs that fit."""

from collections.abc import Callable
from typing import TypeVar

from flask import current_app, request

from service.gateway.body import read_body
from service.gateway.model_server import ModelServer
from service.gateway.query import Query
from service.gateway.settings import Settings
from service.gateway.signature import ModelSpec, Signatures
from sluice.wire.tensors import Array

AnyQuery = TypeVar("AnyQuery", bound=Query)


def model_server() -> ModelServer:
    server: ModelServer = current_app.extensions["model_server"]
    return server


def settings() -> Settings:
    current: Settings = current_app.extensions["settings"]
    return current


def read_request_body() -> bytes:
    return read_body(request, settings().max_body_bytes)


def validated(
    model: ModelSpec, decode: Callable[[Signatures], AnyQuery]
) -> tuple[AnyQuery, dict[str, Array]]:
    """The query and its inputs, held against the signature."""

    def check(signatures: Signatures) -> tuple[AnyQuery, dict[str, Array]]:
        query = decode(signatures)
        return query, query.signature.validate(query.inputs)

    return model_server().checked(model, check)

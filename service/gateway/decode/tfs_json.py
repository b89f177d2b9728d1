"""TensorFlow Serving's JSON body: `instances` (row format) or `inputs` (columnar) to a Query."""

from collections.abc import Mapping
from typing import Any

from service.gateway.decode.foreign import door
from service.gateway.decode.json_documents import check_values, parse_object
from service.gateway.decode.numbers import COLUMNS, ROWS, SIGNATURE, regular_numbers
from service.gateway.decode.values import array_of
from service.gateway.errors import (
    MalformedRequest,
    RequestError,
    UnknownInput,
    did_you_mean,
    shown,
)
from service.gateway.query import TfsQuery
from service.gateway.signatures import Signatures
from sluice.wire.contract import DEFAULT_SIGNATURE
from sluice.wire.signature import Signature, TensorSpec
from sluice.wire.tensors import Array


@door("The JSON body")
def decode_predict(body: bytes, signatures: Signatures) -> TfsQuery:
    """The query of a `:predict` body; raises MalformedRequest, UnknownInput or InvalidInput."""
    check_values(body)
    return _decode_numbers(body, signatures) or _decode_document(parse_object(body), signatures)


def _decode_numbers(body: bytes, signatures: Signatures) -> TfsQuery | None:
    """The fast way, for what most requests are: regular arrays of numbers."""

    def specs_for(name: str | None) -> Mapping[str, TensorSpec] | None:
        if (name or DEFAULT_SIGNATURE) not in signatures:
            return None
        inputs = signatures.get(name or DEFAULT_SIGNATURE).inputs
        return inputs if all(spec.dtype.kind in "fiu" for spec in inputs.values()) else None

    numbers = regular_numbers(body, specs_for)
    if numbers is None:
        return None
    signature = signatures.get(numbers.signature_name or DEFAULT_SIGNATURE)
    return TfsQuery(signature, numbers.arrays, row_format=numbers.key == ROWS)


def _decode_document(document: dict[str, Any], signatures: Signatures) -> TfsQuery:
    signature = signatures.get(_signature_name(document))
    if (ROWS in document) == (COLUMNS in document):
        found = "both" if ROWS in document else "neither"
        raise MalformedRequest(f"Expected one of the keys 'instances' and 'inputs', got {found}")
    if ROWS in document:
        return TfsQuery(signature, _decode_rows(document[ROWS], signature))
    return TfsQuery(signature, _decode_columns(document[COLUMNS], signature), row_format=False)


def _signature_name(document: dict[str, Any]) -> str:
    name = document.get(SIGNATURE, DEFAULT_SIGNATURE)
    if not isinstance(name, str):
        raise MalformedRequest(f"'signature_name' must be a string, got {type(name).__name__}")
    return name or DEFAULT_SIGNATURE


def _decode_rows(rows: Any, signature: Signature) -> dict[str, Array]:
    """One array for each input, from one object (for a single input: one value) for each row."""
    if not isinstance(rows, list):
        raise MalformedRequest("'instances' must be a list with one element for each row")
    if not rows:
        raise MalformedRequest("'instances' is empty; expected at least one row")
    if not _rows_are_named(rows, signature):
        spec = _only_input(signature, "/instances/0")
        return {spec.name: array_of(rows, spec, f"/{ROWS}")}
    for index, row in enumerate(rows):
        if not isinstance(row, dict) or row.keys() != signature.inputs.keys():
            raise _stray_row(row, signature, f"/{ROWS}/{index}")
    return {
        name: array_of([row[name] for row in rows], spec, f"/{ROWS}", within=f"/{name}")
        for name, spec in signature.inputs.items()
    }


def _rows_are_named(rows: list[Any], signature: Signature) -> bool:
    """Whether rows are objects keyed by input; `{"b64": ...}` is a value of a string input."""
    first = rows[0]
    return isinstance(first, dict) and not (set(first) == {"b64"} and "b64" not in signature.inputs)


def _stray_row(row: Any, signature: Signature, pointer: str) -> RequestError:
    """What is wrong with a row that has not the inputs' names as its keys."""
    names = ", ".join(signature.inputs)
    if not isinstance(row, dict):
        return MalformedRequest(
            f"{pointer}: expected an object with the keys {names}, as the rows before it are"
        )
    for key in row:
        if key not in signature.inputs:
            return UnknownInput(
                f'{pointer}: signature "{signature.name}" has no input "{shown(key)}"'
                f"{did_you_mean(key, signature.inputs)}"
            )
    missing = [name for name in signature.inputs if name not in row]
    return UnknownInput(
        f"{pointer}: the input {', '.join(missing)} is missing; a row needs the keys {names}"
    )


def _decode_columns(columns: Any, signature: Signature) -> dict[str, Array]:
    """One array for each input; a name that the signature has not is passed over, as TensorFlow
    Serving does (exchange "column, an extra name")."""
    is_named = isinstance(columns, dict) and (
        any(name in columns for name in signature.inputs) or set(columns) != {"b64"}
    )
    if not is_named:
        spec = _only_input(signature, "/inputs")
        return {spec.name: array_of(columns, spec, f"/{COLUMNS}")}
    missing = [name for name in signature.inputs if name not in columns]
    if missing:
        stray = [key for key in columns if key not in signature.inputs]
        raise UnknownInput(
            f"/{COLUMNS}: the input {', '.join(missing)} is missing"
            + (did_you_mean(stray[0], signature.inputs) if stray else "")
        )
    return {
        name: array_of(columns[name], spec, f"/{COLUMNS}/{name}")
        for name, spec in signature.inputs.items()
    }


def _only_input(signature: Signature, pointer: str) -> TensorSpec:
    if len(signature.inputs) != 1:
        raise UnknownInput(
            f'{pointer}: signature "{signature.name}" has the inputs '
            f"{', '.join(signature.inputs)}; expected an object keyed by them"
        )
    return next(iter(signature.inputs.values()))

"""TensorFlow Serving's JSON body: `instances` (row format) or `inputs` (columnar) to a Query."""

from collections.abc import Mapping
from typing import Any

from service.gateway.decode.foreign import door
from service.gateway.decode.json_documents import check_values, parse_object
from service.gateway.decode.numbers import COLUMNS, ROWS, SIGNATURE, regular_numbers
from service.gateway.decode.values import BASE64_KEY, array_of
from service.gateway.errors import (
    InvalidInput,
    MalformedRequest,
    RequestError,
    UnknownInput,
    did_you_mean,
    shown,
)
from service.gateway.query import TfsQuery
from service.gateway.signatures import Signatures
from sluice.wire.contract import DEFAULT_SIGNATURE, ENCODED_SIGNATURE
from sluice.wire.nearest import nearest
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
    if numbers.key == ROWS:
        _check_has_rows(signature)
    return TfsQuery(signature, numbers.arrays, row_format=numbers.key == ROWS)


def _decode_document(document: dict[str, Any], signatures: Signatures) -> TfsQuery:
    signature = signatures.get(_signature_name(document))
    if (ROWS in document) == (COLUMNS in document):
        raise MalformedRequest(
            f"Expected one of the keys '{ROWS}' and '{COLUMNS}', got {_keys(document, signature)}"
        )
    if ROWS in document:
        _check_has_rows(signature)
        _check_takes_files(document[ROWS], signature, signatures)
        return TfsQuery(signature, _decode_rows(document[ROWS], signature))
    _check_takes_files(document[COLUMNS], signature, signatures)
    return TfsQuery(signature, _decode_columns(document[COLUMNS], signature), row_format=False)


def _keys(document: dict[str, Any], signature: Signature) -> str:
    """What came in place of one of the two keys, and what was meant by it."""
    if ROWS in document:
        return "both"
    for key in document:
        if key in signature.inputs:
            return f'neither; the inputs stand below them: {{"{COLUMNS}": {{"{key}": ...}}}}'
        if meant := nearest(key, (ROWS, COLUMNS)):
            return f"neither; did you mean '{meant}' by '{key}'?"
    return "neither"


def _signature_name(document: dict[str, Any]) -> str:
    name = document.get(SIGNATURE, DEFAULT_SIGNATURE)
    if not isinstance(name, str):
        raise MalformedRequest(f"'signature_name' must be a string, got {type(name).__name__}")
    return name or DEFAULT_SIGNATURE


def _check_has_rows(signature: Signature) -> None:
    """Raises InvalidInput for an input of no axis: of it there is not one for each row."""
    for name, spec in signature.inputs.items():
        if spec.shape == ():
            raise InvalidInput(
                name,
                f"{spec}, one for all rows",
                f"'{ROWS}', with one for each row",
                hint=f'use columns: {{"{COLUMNS}": {{"{name}": ..., ...}}}}',
            )


def _check_takes_files(values: Any, signature: Signature, signatures: Signatures) -> None:
    """Raises MalformedRequest for `{"b64": ...}` where no input takes bytes, and another signature
    does."""
    if any(spec.is_string for spec in signature.inputs.values()):
        return
    first = values
    while first and isinstance(first, list | dict):
        if isinstance(first, dict) and first.keys() == {BASE64_KEY}:
            break
        first = first[0] if isinstance(first, list) else next(iter(first.values()))
    if isinstance(first, dict) and first and ENCODED_SIGNATURE in signatures:
        raise MalformedRequest(
            f'Signature "{signature.name}" takes numbers, and the request holds a file; say '
            f'"{SIGNATURE}": "{ENCODED_SIGNATURE}" beside it'
        )


def _decode_rows(rows: Any, signature: Signature) -> dict[str, Array]:
    """One array for each input, from one object (for a single input: one value) for each row."""
    if not isinstance(rows, list):
        raise MalformedRequest("'instances' must be a list with one element for each row")
    if not rows:
        raise MalformedRequest("'instances' is empty; expected at least one row")
    if not _rows_are_named(rows, signature):
        spec = _only_input(signature, "/instances/0")
        return {spec.name: array_of(rows, spec, f"/{ROWS}")}
    specs = _named(rows[0], signature)
    for index, row in enumerate(rows):
        if not isinstance(row, dict) or row.keys() != specs.keys():
            raise _stray_row(row, signature, specs, f"/{ROWS}/{index}")
    return {
        name: array_of([row[name] for row in rows], spec, f"/{ROWS}", within=f"/{name}")
        for name, spec in specs.items()
    }


def _named(values: Mapping[str, Any], signature: Signature) -> dict[str, TensorSpec]:
    """The inputs that a request has to bring, and of the others those that it does."""
    return {
        name: spec
        for name, spec in signature.inputs.items()
        if name in signature.required or name in values
    }


def _rows_are_named(rows: list[Any], signature: Signature) -> bool:
    """Whether rows are objects keyed by input; `{"b64": ...}` is a value of a string input."""
    first = rows[0]
    return isinstance(first, dict) and not (set(first) == {"b64"} and "b64" not in signature.inputs)


def _stray_row(
    row: Any, signature: Signature, specs: Mapping[str, TensorSpec], pointer: str
) -> RequestError:
    """What is wrong with a row that has not the names of `specs` as its keys."""
    names = ", ".join(specs)
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
    missing = [name for name in specs if name not in row]
    if not missing:
        return MalformedRequest(f"{pointer}: expected the keys {names} alone, as in the first row")
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
        _check_is_no_oip(columns)
        spec = _only_input(signature, "/inputs")
        return {spec.name: array_of(columns, spec, f"/{COLUMNS}")}
    missing = [name for name in signature.required if name not in columns]
    if missing:
        stray = [key for key in columns if key not in signature.inputs]
        raise UnknownInput(
            f"/{COLUMNS}: the input {', '.join(missing)} is missing"
            + (did_you_mean(stray[0], signature.inputs) if stray else "")
        )
    return {
        name: array_of(columns[name], spec, f"/{COLUMNS}/{name}")
        for name, spec in _named(columns, signature).items()
    }


def _check_is_no_oip(columns: Any) -> None:
    first = columns[0] if isinstance(columns, list) and columns else None
    if isinstance(first, dict) and {"name", "datatype", "shape"} <= first.keys():
        raise MalformedRequest(
            f"/{COLUMNS}: that is the Open Inference Protocol; POST it to /v2/models/MODEL/infer"
        )


def _only_input(signature: Signature, pointer: str) -> TensorSpec:
    if len(signature.required) != 1:
        raise UnknownInput(
            f'{pointer}: signature "{signature.name}" has the inputs '
            f"{', '.join(signature.required)}; expected an object keyed by them"
        )
    return next(iter(signature.required.values()))

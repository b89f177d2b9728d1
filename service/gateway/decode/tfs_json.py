"""TensorFlow Serving's JSON body: `instances` (row format) or `inputs` (columnar) to a Query."""

import json
import math
from typing import Any

import numpy as np

from service.gateway.decode.numbers import SIGNATURE, regular_numbers
from service.gateway.decode.values import HugeNumber, array_of
from service.gateway.errors import InvalidInput, MalformedRequest, UnknownInput, did_you_mean
from service.gateway.query import TfsQuery
from service.gateway.signature import DEFAULT_SIGNATURE, Signature, Signatures, TensorSpec
from sluice.wire.tensors import Array

ROWS, COLUMNS = "instances", "inputs"


def decode_predict(body: bytes, signatures: Signatures) -> TfsQuery:
    """The query of a `:predict` body; raises MalformedRequest, UnknownInput or InvalidInput."""
    return _decode_numbers(body, signatures) or _decode_document(parse_object(body), signatures)


def parse_object(body: bytes) -> dict[str, Any]:
    """A JSON object by TensorFlow Serving's reading: NaN and Infinity are numbers, and of equal
    keys the first counts. Raises MalformedRequest for any other document, and for text after it."""
    try:
        document = json.loads(
            body.decode(), parse_float=_float, object_pairs_hook=_first_of_equal_keys
        )
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno} (character {error.pos})"
        raise MalformedRequest(f"The body is not JSON: {error.msg} at {where}") from None
    except RecursionError:
        raise MalformedRequest("The body is not usable JSON: nested too deeply") from None
    except ValueError as error:  # no UTF-8, or an integer of thousands of digits
        raise MalformedRequest(f"The body is not usable JSON: {error}") from None
    if not isinstance(document, dict):
        raise MalformedRequest(
            'The body is not a JSON object; expected {"instances": [...]} or {"inputs": ...}'
        )
    return document


def _decode_numbers(body: bytes, signatures: Signatures) -> TfsQuery | None:
    """The fast way, for what most requests are: one regular array of numbers for the one input."""

    def dtype_for(name: str | None) -> np.dtype | None:
        spec = _numeric_input(signatures, name)
        return spec.dtype if spec else None

    numbers = regular_numbers(body, dtype_for)
    if numbers is None or numbers.key not in (ROWS, COLUMNS):
        return None
    signature = signatures.get(numbers.signature_name or DEFAULT_SIGNATURE)
    return TfsQuery(
        signature, dict.fromkeys(signature.inputs, numbers.array), row_format=numbers.key == ROWS
    )


def _numeric_input(signatures: Signatures, name: str | None) -> TensorSpec | None:
    if (name or DEFAULT_SIGNATURE) not in signatures:
        return None
    specs = list(signatures.get(name or DEFAULT_SIGNATURE).inputs.values())
    return specs[0] if len(specs) == 1 and specs[0].dtype.kind in "fiu" else None


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
        _check_keys(row, signature, f"/{ROWS}/{index}")
    return {name: _stack(rows, spec) for name, spec in signature.inputs.items()}


def _rows_are_named(rows: list[Any], signature: Signature) -> bool:
    """Whether rows are objects keyed by input; `{"b64": ...}` is a value of a string input."""
    first = rows[0]
    return isinstance(first, dict) and not (set(first) == {"b64"} and "b64" not in signature.inputs)


def _check_keys(row: Any, signature: Signature, pointer: str) -> None:
    names = ", ".join(signature.inputs)
    if not isinstance(row, dict):
        raise MalformedRequest(
            f"{pointer}: expected an object with the keys {names}, as the rows before it are"
        )
    for key in row:
        if key not in signature.inputs:
            raise UnknownInput(
                f'{pointer}: signature "{signature.name}" has no input "{key}"'
                f"{did_you_mean(key, signature.inputs)}"
            )
    missing = [name for name in signature.inputs if name not in row]
    if missing:
        raise UnknownInput(
            f"{pointer}: the input {', '.join(missing)} is missing; a row needs the keys {names}"
        )


def _stack(rows: list[Any], spec: TensorSpec) -> Array:
    """The rows' arrays for one input, stacked: [len(rows), ...]."""
    arrays = [
        array_of(row[spec.name], spec, f"/{ROWS}/{index}/{spec.name}")
        for index, row in enumerate(rows)
    ]
    for index, array in enumerate(arrays):
        if array.shape != arrays[0].shape:
            raise InvalidInput(
                spec.name,
                f"shape {list(arrays[0].shape)}, as in the first row",
                str(list(array.shape)),
                at=f"/{ROWS}/{index}/{spec.name}",
            )
    return np.stack(arrays)


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


def _float(text: str) -> float | HugeNumber:
    number = float(text)
    return HugeNumber(text) if math.isinf(number) else number


def _first_of_equal_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(reversed(pairs)) if len(pairs) > 1 else dict(pairs)

"""JSON Schemas of tensors and of predictions, from a model's signatures."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from sluice.wire.contract import DEFAULT_SIGNATURE
from sluice.wire.signature import Signature, TensorSpec

Schema = dict[str, Any]
Leaf = Callable[[np.dtype], Schema]

BASE64: Schema = {
    "type": "object",
    "properties": {"b64": {"type": "string", "contentEncoding": "base64"}},
    "required": ["b64"],
    "additionalProperties": False,
}


def predict_request(signature: Signature) -> Schema:
    """The JSON body of `:predict` for one signature: by rows or by columns."""
    name: Schema = {"const": signature.name}
    rows: Schema = {"type": "array", "minItems": 1, "items": _input_row(signature)}
    columns = _bare_or_named(
        {each: tensor(spec) for each, spec in signature.inputs.items()}, signature.required
    )
    required = [] if signature.name == DEFAULT_SIGNATURE else ["signature_name"]
    return {
        "oneOf": [
            {
                "type": "object",
                "title": "rows",
                "required": ["instances", *required],
                "properties": {"instances": rows, "signature_name": name},
                "not": {"required": ["inputs"]},
            },
            {
                "type": "object",
                "title": "columns",
                "required": ["inputs", *required],
                "properties": {"inputs": columns, "signature_name": name},
                "not": {"required": ["instances"]},
            },
        ]
    }


def predict_response(signature: Signature, why: Signature | None = None) -> Schema:
    """The JSON answer of `:predict`: `predictions` for rows, `outputs` for columns, and where it
    is asked what the signature `why` says of them."""
    by_rows = {"predictions": {"type": "array", "items": _output_row(signature)}}
    by_columns = {"outputs": _single_or_named(_columns(signature))}
    if why:
        by_rows["explanations"] = {
            "type": "array",
            "items": _named(_rows(why.outputs, answered), why.outputs),
        }
        by_columns["explanations"] = _named(_columns(why), why.outputs)
    return {
        "oneOf": [
            {"type": "object", "required": ["predictions"], "properties": by_rows},
            {"type": "object", "required": ["outputs"], "properties": by_columns},
        ]
    }


def _columns(signature: Signature) -> dict[str, Schema]:
    return {name: tensor(spec, answered) for name, spec in signature.outputs.items()}


def tensor(spec: TensorSpec, leaf: Leaf | None = None) -> Schema:
    """Nested arrays of a tensor's shape; an open size takes any length, the batch at least one."""
    if spec.shape is None:
        return {"description": f"{spec}: of any shape"}
    schema = (leaf or element)(spec.dtype)
    for axis in reversed(range(len(spec.shape))):
        size = spec.shape[axis]
        bounds = (
            {"minItems": size, "maxItems": size}
            if size is not None
            else ({"minItems": 1} if axis == 0 else {})
        )
        schema = {"type": "array", "items": schema, **bounds}
    return schema | {"description": str(spec)}


def element(dtype: np.dtype) -> Schema:
    """One element of a request."""
    if dtype.kind == "O":
        return {"anyOf": [{"type": "string"}, BASE64]}
    if dtype.kind == "b":
        return {"type": "boolean"}
    if dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        return {"type": "integer", "minimum": int(bounds.min), "maximum": int(bounds.max)}
    return {"type": "number"}


def answered(dtype: np.dtype) -> Schema:
    """One element of an answer. NaN and Infinity are written as TensorFlow Serving writes them;
    JSON has no such numbers, so a schema can only say what a float is not."""
    schema = element(dtype)
    if schema != {"type": "number"}:
        return schema
    return {
        "not": {"type": ["array", "boolean", "object", "string"]},
        "description": "a number, NaN, Infinity or -Infinity",
    }


def _input_row(signature: Signature) -> Schema:
    return _bare_or_named(_rows(signature.inputs, element), signature.required)


def _output_row(signature: Signature) -> Schema:
    return _single_or_named(_rows(signature.outputs, answered))


def _rows(specs: Mapping[str, TensorSpec], leaf: Leaf) -> dict[str, Schema]:
    """What one row holds of each tensor: its shape less the batch."""
    return {
        name: tensor(TensorSpec(name, spec.dtype, spec.shape[1:]) if spec.shape else spec, leaf)
        for name, spec in specs.items()
    }


def _bare_or_named(values: Mapping[str, Schema], required: Collection[str]) -> Schema:
    """What a request may say: an object keyed by name, and a single tensor bare too."""
    named = _named(values, required)
    if len(required) > 1:
        return named
    return {"anyOf": [named, *(values[name] for name in required)]}


def _single_or_named(values: Mapping[str, Schema]) -> Schema:
    """What an answer says: a single tensor always bare."""
    return _named(values, values) if len(values) > 1 else next(iter(values.values()))


def _named(values: Mapping[str, Schema], required: Collection[str]) -> Schema:
    return {
        "type": "object",
        "properties": dict(values),
        "required": sorted(required),
        "additionalProperties": False,
    }

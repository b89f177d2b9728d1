"""TensorFlow Serving's `:classify` and `:regress` body: JSON features to tf.Examples."""

from typing import Any

from service.gateway.decode.foreign import door
from service.gateway.decode.json_documents import parse_object
from service.gateway.decode.numbers import SIGNATURE
from service.gateway.decode.values import BASE64_KEY, Misfit, decode_base64, describe, encode_text
from service.gateway.errors import MalformedRequest, shown
from service.gateway.query import ExamplesQuery
from sluice.wire.protos.serving_pb2 import Input
from sluice.wire.protos.tensorflow_pb2 import Example, Feature, FloatList, Int64List

EXAMPLES, CONTEXT = "examples", "context"
INT64 = range(-(2**63), 2**63)
_KINDS = {
    "int64_list": "a whole number",
    "float_list": "a number with a point",
    "bytes_list": "a string",
}


@door("The JSON body")
def decode_examples(body: bytes) -> ExamplesQuery:
    """The query of a body `{"signature_name": ..., "context": {...}, "examples": [{...}, ...]}`.

    A feature is one value or a list of one kind: integers, floats, or strings and base64.
    """
    document = parse_object(body)
    rows, name = document.get(EXAMPLES), document.get(SIGNATURE, "")
    if not isinstance(name, str):
        raise MalformedRequest(f"'signature_name' must be a string, got {describe(name)}")
    if not isinstance(rows, list) or not rows:
        raise MalformedRequest("'examples' must be a list with at least one object of features")
    examples = [_example(row, f"/{EXAMPLES}/{index}") for index, row in enumerate(rows)]
    if CONTEXT not in document:
        plain = Input()
        plain.example_list.examples.extend(examples)
        return ExamplesQuery(name, plain)
    shared = Input()
    shared.example_list_with_context.examples.extend(examples)
    shared.example_list_with_context.context.CopyFrom(_example(document[CONTEXT], f"/{CONTEXT}"))
    return ExamplesQuery(name, shared)


def _example(row: Any, pointer: str) -> Example:
    if not isinstance(row, dict):
        raise MalformedRequest(f"{pointer}: expected an object of features, got {describe(row)}")
    example = Example()
    for name, value in row.items():
        values = value if isinstance(value, list) else [value]
        example.features.feature[name].CopyFrom(_feature(values, f"{pointer}/{shown(name)}"))
    return example


def _feature(values: list[Any], pointer: str) -> Feature:
    """One feature; the first value's kind is that of all."""
    kinds = set(map(type, values))
    if kinds == {float}:
        return Feature(float_list=FloatList(value=values))
    if kinds == {int} and min(values) in INT64 and max(values) in INT64:
        return Feature(int64_list=Int64List(value=values))
    feature = Feature()
    for index, value in enumerate(values):
        kind, element = _element(value, f"{pointer}/{index}")
        first = feature.WhichOneof("kind")
        if first not in (None, kind):
            raise MalformedRequest(
                f"{pointer}/{index}: expected {_KINDS[first]}, as the values before it are, "
                f"got {_KINDS[kind]}"
            )
        getattr(feature, kind).value.append(element)
    return feature


def _element(value: Any, pointer: str) -> tuple[str, Any]:
    """The field of a feature that a value goes to, and how it stands there."""
    if isinstance(value, bool | int) and value in INT64:
        return "int64_list", int(value)
    if isinstance(value, float):
        return "float_list", value
    try:
        if type(value) is str:
            return "bytes_list", encode_text(value)
        if isinstance(value, dict) and value.keys() == {BASE64_KEY}:
            return "bytes_list", decode_base64(value[BASE64_KEY])
    except Misfit as misfit:
        raise MalformedRequest(f"{pointer}: expected {misfit}") from None
    raise MalformedRequest(
        f'{pointer}: expected a number, a string or {{"b64": "..."}}, got {describe(value)}'
    )

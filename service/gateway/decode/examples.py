"""TensorFlow Serving's `:classify` and `:regress` body: JSON features to tf.Examples."""

from typing import Any

from service.gateway.decode.numbers import SIGNATURE
from service.gateway.decode.tfs_json import parse_object
from service.gateway.decode.values import BASE64_KEY, Misfit, decode_base64
from service.gateway.errors import MalformedRequest
from service.gateway.query import ExamplesQuery
from sluice.wire.protos.serving_pb2 import Input
from sluice.wire.protos.tensorflow_pb2 import Example, Feature

EXAMPLES, CONTEXT = "examples", "context"
INT64 = range(-(2**63), 2**63)


def decode_examples(body: bytes) -> ExamplesQuery:
    """The query of a body `{"signature_name": ..., "context": {...}, "examples": [{...}, ...]}`.

    A feature is one value or a list of one kind: integers, floats, or strings and base64.
    """
    document = parse_object(body)
    rows, name = document.get(EXAMPLES), document.get(SIGNATURE, "")
    if not isinstance(name, str):
        raise MalformedRequest(f"'signature_name' must be a string, got {type(name).__name__}")
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
        raise MalformedRequest(
            f"{pointer}: expected an object of features, got {type(row).__name__}"
        )
    example = Example()
    for name, value in row.items():
        values = value if isinstance(value, list) else [value]
        example.features.feature[name].CopyFrom(_feature(values, f"{pointer}/{name}"))
    return example


def _feature(values: list[Any], pointer: str) -> Feature:
    """One feature; the first value's kind is that of all."""
    feature = Feature()
    for index, value in enumerate(values):
        kind, element = _element(value, f"{pointer}/{index}")
        if feature.WhichOneof("kind") not in (None, kind):
            raise MalformedRequest(
                f"{pointer}/{index}: expected a value for a "
                f"{feature.WhichOneof('kind')}, as before it, "
                f"got one for a {kind}"
            )
        getattr(feature, kind).value.append(element)
    return feature


def _element(value: Any, pointer: str) -> tuple[str, Any]:
    if isinstance(value, bool | int) and value in INT64:
        return "int64_list", int(value)
    if isinstance(value, float):
        return "float_list", value
    if type(value) is str:
        return "bytes_list", value.encode("utf-8", "surrogatepass")
    if isinstance(value, dict) and [*map(type, value.values())] == [str] and BASE64_KEY in value:
        try:
            return "bytes_list", decode_base64(value[BASE64_KEY])
        except Misfit as misfit:
            raise MalformedRequest(f"{pointer}: expected {misfit}") from None
    raise MalformedRequest(f'{pointer}: expected a number, a string or {{"b64": "..."}}')

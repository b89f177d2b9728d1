"""Classify and regress bodies to tf.Examples."""

import json

import pytest

from service.gateway.decode.examples import decode_examples
from service.gateway.errors import MalformedRequest


def decode(document):
    return decode_examples(json.dumps(document).encode())


def test_features_of_every_kind():
    query = decode(
        {
            "signature_name": "s",
            "examples": [
                {"i": 1, "f": [0.5, 2.0], "t": "text", "b": {"b64": "AAE="}, "flag": [True, False]}
            ],
        }
    )
    (example,) = query.examples.example_list.examples
    feature = example.features.feature
    assert query.signature_name == "s"
    assert feature["i"].int64_list.value == [1]
    assert feature["f"].float_list.value == [0.5, 2.0]
    assert feature["t"].bytes_list.value == [b"text"]
    assert feature["b"].bytes_list.value == [b"\x00\x01"]
    assert feature["flag"].int64_list.value == [1, 0]


def test_a_context_is_sent_once_beside_the_examples():
    query = decode({"context": {"x": 1.5}, "examples": [{}, {}]})
    shared = query.examples.example_list_with_context
    assert shared.context.features.feature["x"].float_list.value == [1.5]
    assert len(shared.examples) == 2


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "'examples' must be a list"),
        ({"examples": []}, "at least one"),
        ({"examples": [5]}, "/examples/0: expected an object of features, got 5"),
        ({"examples": [{"x": None}]}, "/examples/0/x/0: expected a number"),
        (
            {"examples": [{"x": [1, 2.5]}]},
            "/examples/0/x/1: expected a whole number, as the values before it are, got a number ",
        ),
        ({"examples": [{"x": [[1]]}]}, "/examples/0/x/0: expected a number"),
        ({"examples": [{"x": 2**63}]}, "/examples/0/x/0: expected a number"),
        ({"examples": [{"x": {"b64": "***"}}]}, "/examples/0/x/0: expected base64"),
        ({"examples": [{}], "context": 1}, "/context: expected an object"),
        ({"examples": [{}], "signature_name": 1}, "must be a string"),
    ],
)
def test_what_is_no_example_is_said_with_its_place(document, message):
    with pytest.raises(MalformedRequest, match=message.replace("(", r"\(")):
        decode(document)

"""JSON bodies to arrays, and the message for each that cannot be one."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.gateway.decode.numbers import regular_numbers
from service.gateway.decode.tfs_json import decode_predict
from service.gateway.decode.values import array_of
from service.gateway.errors import InvalidInput, MalformedRequest, RequestError, UnknownInput
from service.gateway.signatures import Signatures
from sluice.wire.data_types import data_type_of
from sluice.wire.protos.tensorflow_pb2 import SignatureDef
from sluice.wire.signature import TensorSpec
from sluice.wire.tensors import encode_shape

FLOAT, INT, STRING, BOOL = np.dtype("<f4"), np.dtype("u1"), np.dtype(object), np.dtype(bool)


def spec(dtype=FLOAT, shape=(None, 2)):
    return TensorSpec("x", np.dtype(dtype), shape)


def signatures(**inputs):
    """Signatures with a serving_default of these inputs: name=(dtype, shape)."""
    proto = SignatureDef()
    for name, (dtype, shape) in inputs.items():
        proto.inputs[name].dtype = data_type_of(dtype)
        sizes = (-1 if size is None else size for size in shape)
        proto.inputs[name].tensor_shape.CopyFrom(encode_shape(sizes))
    return Signatures({"serving_default": proto, "other": proto})


ONE = signatures(x=(FLOAT, (None, 2)))
TWO = signatures(image=(FLOAT, (None, 2)), meta=(INT, (None,)))


def decode(document, known=ONE):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return decode_predict(body, known)


@pytest.mark.parametrize(
    "document",
    [
        {"instances": [[1, 2], [3, 4.5]]},
        {"inputs": [[1, 2], [3, 4.5]]},
        {"inputs": {"x": [[1, 2], [3, 4.5]]}},
        {"instances": [{"x": [1, 2]}, {"x": [3, 4.5]}]},
        {"signature_name": "other", "instances": [[1, 2], [3, 4.5]]},
        {"instances": [[1, 2], [3, 4.5]], "unknown": {"beside": []}},
    ],
)
def test_every_spelling_of_one_input_gives_the_same_array(document):
    query = decode(document)
    np.testing.assert_array_equal(query.inputs["x"], np.array([[1, 2], [3, 4.5]], FLOAT))
    assert query.inputs["x"].dtype == FLOAT
    assert query.row_format == ("instances" in document)
    assert query.signature.name == document.get("signature_name", "serving_default")


def test_two_inputs_by_row_and_by_column_are_the_same():
    rows = decode({"instances": [{"image": [1, 2], "meta": 7}, {"image": [3, 4], "meta": 8}]}, TWO)
    columns = decode({"inputs": {"image": [[1, 2], [3, 4]], "meta": [7, 8]}}, TWO)
    for name in ("image", "meta"):
        np.testing.assert_array_equal(rows.inputs[name], columns.inputs[name])
        assert rows.inputs[name].dtype == columns.inputs[name].dtype


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        (b"", MalformedRequest, "not JSON"),
        (b'{"instances": [1,', MalformedRequest, "character 17"),
        (
            b'{"instances": ' + b"[" * 70 + b"]" * 70 + b"}",
            InvalidInput,
            "nested more than 64 deep",
        ),
        (b'{"instances": [[1,2]]} x', MalformedRequest, "Extra data"),
        (b"\xff\xfe", MalformedRequest, "not usable JSON"),
        (b'{"instances": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", RequestError, ""),
        (b'{"instances": [[' + b"9" * 5000 + b", 1]]}", MalformedRequest, "not usable JSON"),
        (b"[1]", MalformedRequest, "not a JSON object"),
        (b"{}", MalformedRequest, "got neither"),
        (b'{"instances": [], "inputs": []}', MalformedRequest, "got both"),
        (b'{"instances": []}', MalformedRequest, "'instances' is empty"),
        (b'{"instances": 5}', MalformedRequest, "'instances' must be a list"),
        (b'{"signature_name": 5, "instances": [1]}', MalformedRequest, "must be a string, got int"),
        (b'{"signature_name": "othr", "inputs": [1]}', RequestError, 'did you mean "other"'),
        (
            b'{"instances": [{"y": [1, 2]}]}',
            UnknownInput,
            '/instances/0: signature "serving_default" has no input "y"; there is: "x"',
        ),
        (
            b'{"instances": [{"x": [1, 2]}, 5]}',
            MalformedRequest,
            "/instances/1: expected an object",
        ),
        (
            b'{"instances": [{"x": [1, 2]}, {}]}',
            UnknownInput,
            "/instances/1: the input x is missing",
        ),
        (b'{"inputs": {"y": [[1, 2]]}}', UnknownInput, "/inputs: the input x is missing"),
        (
            b'{"instances": [[1, 2], [3]]}',
            InvalidInput,
            "inputs.x at /instances/1: expected a list of 2, as its neighbours are, "
            "got a list of 1 (ragged lists)",
        ),
        (b'{"instances": [[1, 2], [3, [4]]]}', InvalidInput, "/instances/1/1: expected float32"),
        (
            b'{"instances": [[1, null]]}',
            InvalidInput,
            "/instances/0/1: expected float32, a number, got null",
        ),
        (
            b'{"instances": [[1, 2], [true, 2]]}',
            InvalidInput,
            "/instances/1/0: expected float32, a number, got true",
        ),
        (b'{"instances": [[1, "1.0"]]}', InvalidInput, 'got the string "1.0"'),
        (
            b'{"instances": [[1, 1e400]]}',
            InvalidInput,
            "/instances/0/1: expected float32, a number, "
            "got 1e400, too big to be stored in a double",
        ),
        (
            b'{"instances": [[1, ' + b"9" * 400 + b"]]}",
            InvalidInput,
            "integer of more than 77 digits",
        ),
        (b'{"instances": [{"b64": "aGk="}]}', InvalidInput, "got an object with the keys b64"),
        (b'{"inputs": {"x": [[1, {}]]}}', InvalidInput, "/inputs/x/0/1: expected"),
        (
            b'{"instances": [{"x": [1, 2]}, {"x": [1]}]}',
            InvalidInput,
            "at /instances/1/x: expected a list of 2, as its neighbours are, got a list of 1",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place(body, error, message):
    with pytest.raises(error) as raised:
        decode(body)
    assert message in str(raised.value)


def test_a_single_value_for_two_inputs_names_both():
    with pytest.raises(UnknownInput, match="image, meta; expected an object keyed by them"):
        decode({"instances": [1]}, TWO)


@pytest.mark.parametrize(
    ("dtype", "value", "message"),
    [
        (INT, 256, "uint8, 0 to 255, got 256"),
        (INT, -1, "uint8, 0 to 255, got -1"),
        (INT, 1.0, "without a point, got 1.0"),
        (INT, True, "got true"),
        (BOOL, 1, "expected true or false, got 1"),
        (STRING, 5, 'expected a string or {"b64": "..."}, got 5'),
        (STRING, {"b64": "***"}, "expected base64"),
        (STRING, {"b64": 5}, "alone in its object"),
        (STRING, {"b64": "aGk=", "x": 1}, "alone in its object"),
        (np.complex64, 1, "JSON cannot carry complex64"),
    ],
)
def test_values_outside_the_dtype(dtype, value, message):
    with pytest.raises(InvalidInput) as raised:
        array_of([[0 if dtype is INT else value], [value]], spec(dtype), "/inputs")
    assert message in str(raised.value)
    assert "at /inputs/" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "data"),
    [("aGk=", b"hi"), ("aGk", b"hi"), ("aG\nk=\n", b"hi"), ("", b""), ("+/8=", b"\xfb\xff")],
)
def test_base64_forgives_line_breaks_and_missing_padding(text, data):
    assert array_of([{"b64": text}], spec(STRING), "")[0] == data


def test_of_equal_keys_the_first_counts():
    query = decode(b'{"instances": [[1, 2]], "instances": [[3, 4]]}')
    np.testing.assert_array_equal(query.inputs["x"], [[1, 2]])


def test_nan_infinity_and_numbers_beyond_float32():
    query = decode(b'{"instances": [[NaN, -Infinity], [1e39, 0]]}')
    np.testing.assert_array_equal(query.inputs["x"], [[np.nan, -np.inf], [np.inf, 0]])


def fast(body, dtype):
    """The one array that the fast way reads, or None."""
    numbers = regular_numbers(body, lambda _name: {"x": spec(dtype)})
    return numbers and numbers.arrays["x"]


shapes = arrays.array_shapes(min_dims=1, max_dims=4, max_side=4)
finite = st.floats(allow_nan=False, allow_infinity=False)


@given(arrays.arrays(np.float64, shapes, elements=finite), st.sampled_from([None, 0, 3]))
def test_the_fast_way_reads_floats_as_the_careful_way_does(array, indent):
    body = json.dumps({"instances": array.tolist()}, indent=indent).encode()
    numbers = fast(body, "<f8")
    assert numbers is not None
    np.testing.assert_array_equal(numbers, array)
    np.testing.assert_array_equal(numbers, array_of(json.loads(body)["instances"], spec("<f8"), ""))


@given(
    st.sampled_from(["i1", "u1", "<i4", "<i8", "<u8"]).flatmap(
        lambda dtype: arrays.arrays(dtype, shapes)
    )
)
def test_the_fast_way_reads_integers(array):
    numbers = fast(json.dumps({"inputs": array.tolist()}).encode(), array.dtype)
    assert numbers is not None
    np.testing.assert_array_equal(numbers, array)


nested = st.recursive(
    st.integers(0, 9) | st.none() | st.booleans() | st.just("1"),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=12,
)


@given(st.lists(nested, min_size=1, max_size=4))
def test_the_fast_way_never_takes_what_the_careful_way_refuses(lists):
    numbers = fast(json.dumps({"instances": lists}).encode(), FLOAT)
    try:
        careful = array_of(lists, spec(), "")
    except InvalidInput:
        assert numbers is None
    else:
        if numbers is not None:
            np.testing.assert_array_equal(numbers, careful)


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": [[1,2],[3]]}',
        b'{"instances": [[1,2],3]}',
        b'{"instances": [1, true]}',
        b'{"instances": [1, null]}',
        b'{"instances": 5, "signature_name": "[1,2]"}',
        b'{"instances": [1,2], "more": [3]}',
        b'{"instances": [1,2], "instances": [3,4]}',
        b'{"signature_name": "\\u005b", "instances": [1,2]}',
        b'{"signature_name": "a", "signature_name": "a"}',
        b'{"signature_name": "a", "instances": [1,2], "signature_name": "a"}',
        b'{"instances": []}',
        b"[1,2]",
    ],
)
def test_the_fast_way_leaves_what_is_not_plain(body):
    assert fast(body, FLOAT) is None


def test_the_fast_way_leaves_integers_out_of_range():
    assert fast(b'{"instances": [255]}', INT) is not None
    assert fast(b'{"instances": [256]}', INT) is None
    assert fast(b'{"instances": [1.0]}', INT) is None


def test_the_fast_way_reads_around_a_signatures_name():
    for body in (
        b'{"signature_name": "a[1e]", "instances": [1,2]}',
        b'{"instances": [1,2], "signature_name": "a[1e]"}',
    ):
        np.testing.assert_array_equal(fast(body, FLOAT), [1, 2])


PAIR = {"a1": spec("<f4"), "a2": spec("u1")}


def fast_pair(text):
    return regular_numbers(text.encode(), lambda _name: PAIR)


@pytest.mark.parametrize(
    "text",
    [
        '{"inputs": {"a1": [[1, 2.5], [3, 4]], "a2": [7, 8]}}',
        '{"inputs": {"a2": [7, 8], "a1": [[1, 2.5], [3, 4]]}}',
        '{"instances": [{"a1": [1, 2.5], "a2": 7}, {"a1": [3, 4], "a2": 8}]}',
        '{"signature_name": "s", "instances": [{"a2": 7, "a1": [1, 2.5]}, {"a2":8,"a1":[3,4]}]}',
    ],
)
def test_the_fast_way_reads_several_inputs(text):
    numbers = fast_pair(text)
    assert numbers is not None
    np.testing.assert_array_equal(numbers.arrays["a1"], np.array([[1, 2.5], [3, 4]], "<f4"))
    np.testing.assert_array_equal(numbers.arrays["a2"], np.array([7, 8], "u1"))
    assert {name: array.dtype for name, array in numbers.arrays.items()} == {
        name: each.dtype for name, each in PAIR.items()
    }


@pytest.mark.parametrize(
    "text",
    [
        '{"inputs": {"a1": [1]}}',
        '{"inputs": {"a1": [1], "a2": [2], "a3": [3]}}',
        '{"inputs": {"a1": [1], "a2": [2], "a1": [3]}}',
        '{"inputs": {"a1": [[1,2],[3]], "a2": [2]}}',
        '{"inputs": {"a1": [[[1]],2], "a2": [2]}}',
        '{"inputs": {"a1": [1], "a2": [256]}}',
        '{"inputs": {"a1": [1], "a2": 2}}',
        '{"inputs": {"a1": [1], "a\\u0032": [2]}}',
        '{"inputs": [{"a1": [1], "a2": [2]}]}',
        '{"inputs": [1, 2]}',
        '{"instances": {"a1": [1], "a2": [2]}}',
        '{"instances": [{"a1": 1, "a2": 2}, {"a2": 1, "a1": 2}]}',
        '{"instances": [{"a1": 1, "a2": 2}, {"a1": 1}]}',
        '{"instances": [{"a1": 1, "a2": 2}, 5]}',
        '{"instances": [{"a1": 1, "a2": 2}, {"a1": [1], "a2": 2}]}',
        '{"instances": [{"a1": [1], "a2": 2}, {"a1": 1, "a2": 2}]}',
        '{"instances": [{"a1": [1, 2], "a2": 2}, {"a1": [[1, 2]], "a2": 2}]}',
        '{"instances": [{"a1": 1, "a2": 1.0}]}',
        '{"instances": [{"a1": 1, "a2": 256}]}',
        '{"instances": [{"a1": true, "a2": 1}]}',
        '{"instances": [{"a1": null, "a2": 1}]}',
        '{"instances": [{"a1": "1", "a2": 1}]}',
        '{"instances": [{"a1": [], "a2": 1}]}',
    ],
)
def test_the_fast_way_leaves_inputs_that_are_not_plain(text):
    assert fast_pair(text) is None


def test_a_shape_that_the_body_does_not_hold_is_never_built():
    """The first elements are nested as if there were 1000 ** 8 numbers, or 64 axes."""
    wide = "0"
    for _ in range(8):
        wide = "[" + wide + ",0" * 999 + "]"
    deep = "[" * 63 + "0" + "]" * 63 + ",0" * 100_000
    for lists in (wide, f"[{deep}]"):
        assert fast(f'{{"instances": {lists}}}'.encode(), FLOAT) is None
        assert fast_pair(f'{{"instances": [{{"a1": {lists}, "a2": 1}}]}}') is None
        assert fast_pair(f'{{"inputs": {{"a1": {lists}, "a2": [1]}}}}') is None


rows_of_pairs = st.lists(st.tuples(nested, nested), min_size=1, max_size=3)


@settings(max_examples=300)
@given(rows_of_pairs, st.booleans())
def test_the_fast_way_reads_named_rows_and_columns_as_the_careful_way_does(pairs, row_format):
    known = signatures(a1=("<f4", (None,)), a2=("u1", (None,)))
    if row_format:
        document = {"instances": [{"a1": first, "a2": second} for first, second in pairs]}
    else:
        document = {"inputs": dict(zip(("a1", "a2"), pairs[0], strict=True))}
    numbers = fast_pair(json.dumps(document))
    try:
        careful = decode({**document, "beside": 0}, known).inputs
    except RequestError:
        assert numbers is None
    else:
        for name in PAIR if numbers else ():
            np.testing.assert_array_equal(numbers.arrays[name], careful[name])

"""sluice.wire.large_tensors: what it cuts out and pastes in is what protobuf reads and writes."""

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from sluice.wire import large_tensors as wire
from sluice.wire.protos.serving_pb2 import PredictRequest
from sluice.wire.protos.tensorflow_pb2 import TensorProto
from sluice.wire.tensors import decode_tensor, encode_tensor

INPUTS = PredictRequest.INPUTS_FIELD_NUMBER
ARRAYS = st.dictionaries(
    st.text(max_size=3),
    npst.arrays(
        st.sampled_from(["f4", "u1", "?", "i8"]), npst.array_shapes(max_dims=2, max_side=9)
    ),
    max_size=3,
)


@pytest.fixture(autouse=True)
def nothing_is_too_small(monkeypatch):
    monkeypatch.setattr(wire, "LARGE", 8)


def request_of(arrays, content=True):
    request = PredictRequest(output_filter=["a", "b"])
    request.model_spec.name = "model"
    for name, array in arrays.items():
        request.inputs[name].CopyFrom(encode_tensor(array, content))
    return request


def put_back(data):
    """The message of `data`, read by way of `cut`."""
    rest, contents = wire.cut(data, INPUTS)
    request = PredictRequest.FromString(rest)
    for name, content in contents.items():
        assert not request.inputs[name].tensor_content
        request.inputs[name].tensor_content = bytes(content)
    return request


@given(arrays=ARRAYS, content=st.booleans())
def test_a_request_that_was_cut_holds_what_it_held(arrays, content):
    request = request_of(arrays, content)
    assert put_back(request.SerializeToString()) == request


def test_a_large_content_is_not_copied():
    image = np.arange(60, dtype="f4").reshape(3, 20)
    data = request_of({"image": image}).SerializeToString()
    rest, contents = wire.cut(data, INPUTS)
    assert len(rest) < len(data) - image.nbytes
    assert contents["image"].obj is data
    header = PredictRequest.FromString(rest).inputs["image"]
    np.testing.assert_array_equal(decode_tensor(header, content=contents["image"]), image)


@given(arrays=ARRAYS)
def test_pasted_arrays_are_read_by_protobuf(arrays):
    pasted = wire.paste(request_of({}), INPUTS, arrays)
    assert PredictRequest.FromString(pasted) == request_of(arrays)


def test_an_array_that_is_not_contiguous_is_pasted_in_its_own_order():
    array = np.arange(24, dtype="f4").reshape(4, 6)[::2, ::-1]
    pasted = PredictRequest.FromString(wire.paste(PredictRequest(), INPUTS, {"x": array}))
    np.testing.assert_array_equal(decode_tensor(pasted.inputs["x"]), array)


@given(
    arrays=ARRAYS,
    edits=st.lists(
        st.tuples(st.floats(0, 1), st.sampled_from("xid"), st.binary(max_size=4)), max_size=4
    ),
)
def test_whatever_bytes_come_it_reads_them_as_protobuf_does(arrays, edits):
    data = bytearray(request_of(arrays).SerializeToString())
    for where, how, new in edits:
        at = round(where * len(data))
        data[at : at + {"x": len(new), "i": 0, "d": 3}[how]] = b"" if how == "d" else new
    data = bytes(data)
    try:
        expected = PredictRequest.FromString(data)
    except DecodeError:
        with pytest.raises(DecodeError):
            put_back(data)
    else:
        assert put_back(data) == expected


def entry(*fields):
    """A serialized request with one entry among its inputs, made of serialized fields."""
    body = b"".join(bytes([number << 3 | 2, len(value)]) + value for number, value in fields)
    return bytes([INPUTS << 3 | 2, len(body)]) + body


CONTENT = TensorProto(tensor_content=b"123456789").SerializeToString()
TWICE = entry((1, b"x"), (2, CONTENT))


@pytest.mark.parametrize(
    "data",
    [
        TWICE + TWICE,
        entry((1, b"x"), (2, CONTENT), (2, CONTENT)),
        entry((1, b"x"), (2, CONTENT + CONTENT)),
        entry((1, b"x"), (2, CONTENT), (3, b"unknown")),
        entry((2, CONTENT)),
        TWICE[:-1],
        TWICE + PredictRequest(output_filter=["x"] * wire.MAX_FIELDS).SerializeToString(),
    ],
    ids=[
        "a key twice",
        "two values",
        "two contents",
        "a field more",
        "no key",
        "too short",
        "many fields",
    ],
)
def test_what_is_irregular_is_left_to_protobuf(data):
    assert wire.cut(data, INPUTS) == (data, {})

"""The wire's tensors: both forms of every dtype round-trip; what contradicts itself is refused."""

import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from sluice.wire import tensors
from sluice.wire.data_types import TensorError, data_type_of
from sluice.wire.protos.tensorflow_pb2 import DataType, TensorProto, TensorShapeProto
from sluice.wire.tensors import decode_tensor, encode_tensor

NUMERIC = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", "c8", "c16"]
EXTRA = [
    ml_dtypes.bfloat16,
    ml_dtypes.float8_e5m2,
    ml_dtypes.float8_e4m3fn,
    ml_dtypes.int4,
    ml_dtypes.uint4,
]
SHAPES = npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)


def assert_same(ours, theirs):
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    assert ours.tobytes() == theirs.tobytes()  # bits: NaN payloads and -0.0 count


@given(
    array=st.sampled_from(NUMERIC).flatmap(lambda dtype: npst.arrays(dtype, SHAPES)),
    content=st.booleans(),
)
def test_numeric_arrays_round_trip(array, content):
    assert_same(decode_tensor(encode_tensor(array, content)), array)


@given(
    values=npst.arrays("f4", SHAPES, elements=st.integers(0, 7).map(float)),
    dtype=st.sampled_from(EXTRA),
    content=st.booleans(),
)
def test_ml_dtypes_round_trip(values, dtype, content):
    array = values.astype(dtype)
    assert_same(decode_tensor(encode_tensor(array, content)), array)


@given(array=npst.arrays(object, SHAPES, elements=st.binary(max_size=300)), content=st.booleans())
def test_strings_round_trip(array, content):
    decoded = decode_tensor(encode_tensor(array, content))
    assert decoded.shape == array.shape
    assert decoded.tolist() == array.tolist()


@given(
    proto=st.builds(
        TensorProto,
        dtype=st.sampled_from(DataType.values()),
        tensor_shape=st.lists(st.integers(-1, 6) | st.integers(0, 2**62), max_size=4).map(
            tensors.encode_shape
        ),
        tensor_content=st.binary(max_size=20),
        int_val=st.lists(st.integers(-9, 999), max_size=4),
        float_val=st.lists(st.floats(width=32), max_size=4),
        string_val=st.lists(st.binary(max_size=3)),
        half_val=st.lists(st.integers(0, 2**31 - 1), max_size=3),
        float8_val=st.binary(max_size=4),
    )
)
def test_any_proto_is_an_array_of_its_shape_or_a_tensor_error(proto):
    try:
        array = decode_tensor(proto, max_filled_bytes=1 << 20)
    except TensorError:
        return
    assert list(array.shape) == [dim.size for dim in proto.tensor_shape.dim]
    assert data_type_of(array.dtype) == proto.dtype


@pytest.mark.parametrize(
    "layout",
    [
        pytest.param(lambda array: array.astype(">f4"), id="big-endian"),
        pytest.param(np.asfortranarray, id="column-major"),
        pytest.param(lambda array: np.repeat(array, 2, axis=1)[:, ::2], id="strided"),
    ],
)
def test_any_memory_layout_is_sent_row_major_and_little_endian(layout):
    array = np.arange(6, dtype="<f4").reshape(2, 3)
    for content in (False, True):
        assert_same(decode_tensor(encode_tensor(layout(array), content)), array)


def test_content_is_not_copied_again():
    assert not decode_tensor(encode_tensor(np.arange(4.0), content=True)).flags.owndata


def proto_of(dtype, shape, **values):
    return TensorProto(dtype=dtype, tensor_shape=tensors.encode_shape(shape), **values)


@pytest.mark.parametrize(
    ("proto", "expected"),
    [
        (proto_of(DataType.DT_FLOAT, [3], float_val=[1.5]), [1.5, 1.5, 1.5]),
        (proto_of(DataType.DT_FLOAT, [4], float_val=[1, 2]), [1, 2, 2, 2]),
        (proto_of(DataType.DT_FLOAT, [2]), [0, 0]),
        (proto_of(DataType.DT_FLOAT, [1], float_val=[1, 2]), [1]),
        (proto_of(DataType.DT_FLOAT, []), 0.0),
        (proto_of(DataType.DT_STRING, [2]), [b"", b""]),
        (proto_of(DataType.DT_STRING, [2], string_val=[b"a"]), [b"a", b"a"]),
        (proto_of(DataType.DT_UINT8, [2], int_val=[256, -1]), [0, 255]),
        (proto_of(DataType.DT_COMPLEX64, [2], scomplex_val=[1, 2]), [1 + 2j, 1 + 2j]),
        (proto_of(DataType.DT_FLOAT, [0], tensor_content=b"ignored"), []),
    ],
)
def test_typed_values_fill_the_shape_as_tensorflow_fills_it(proto, expected):
    assert decode_tensor(proto).tolist() == expected


@pytest.mark.parametrize(
    ("proto", "message"),
    [
        (
            proto_of(DataType.DT_FLOAT, [3], tensor_content=b"12345678"),
            "tensor_content holds 8 bytes; dtype and shape ask for 3 x 4 = 12",
        ),
        (proto_of(DataType.DT_RESOURCE, [1]), "dtype DT_RESOURCE cannot be held in a tensor"),
        (proto_of(DataType.DT_INVALID, [1]), "dtype DT_INVALID"),
        (proto_of(999, [1]), "dtype 999"),
        (proto_of(DataType.DT_FLOAT, [2, -1]), r"shape \[2, -1\] is not fully known"),
        (
            TensorProto(dtype=DataType.DT_FLOAT, tensor_shape=TensorShapeProto(unknown_rank=True)),
            "not fully known",
        ),
        (proto_of(DataType.DT_FLOAT, [1] * 65), "65 dimensions; at most 64"),
        (
            proto_of(DataType.DT_FLOAT, [10**5, 10**5, 10**5], float_val=[1]),
            "more than 2.40 elements",
        ),
        (proto_of(DataType.DT_FLOAT, [0, 2**62, 2**62]), "more than 2.40 elements"),
        (
            proto_of(DataType.DT_FLOAT, [10**6, 10**6], float_val=[1]),
            "1 values for shape .* takes 4000000000000 bytes, more than the 67108864 allowed",
        ),
        (proto_of(DataType.DT_STRING, [10**12], string_val=[b"a"]), "more than the .* allowed"),
        (proto_of(DataType.DT_STRING, [10**12], tensor_content=b"\0"), "too few for 1000000000000"),
        (proto_of(DataType.DT_STRING, [1], tensor_content=b"\5abc"), "take 6"),
        (
            proto_of(DataType.DT_STRING, [1], tensor_content=b"\xff" * 9),
            "no string length at byte 0",
        ),
        (proto_of(DataType.DT_BOOL, [2], tensor_content=b"\1\2"), "neither 0 nor 1"),
        (proto_of(DataType.DT_COMPLEX64, [1], scomplex_val=[1]), "a complex element takes two"),
    ],
)
def test_a_contradiction_says_what_was_expected_and_what_came(proto, message):
    with pytest.raises(TensorError, match=message):
        decode_tensor(proto)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array(["text"], object), "element 0 is str; a string tensor holds bytes"),
        (np.array(["text"]), "has no TensorFlow dtype"),
        (np.array(["2020-01-01"], "datetime64[D]"), "has no TensorFlow dtype"),
    ],
)
def test_what_no_tensor_holds_is_refused(array, message):
    with pytest.raises(TensorError, match=message):
        encode_tensor(array)


def test_numpy_bytes_are_strings():
    assert list(encode_tensor(np.array([b"ab", b"c"])).string_val) == [b"ab", b"c"]


def test_importing_it_loads_no_tensorflow():
    code = "import sys, sluice.wire.tensors; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)

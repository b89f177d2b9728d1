"""sluice.wire.tensors reads every TensorProto as TensorFlow's own Tensor::FromProto does."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sluice.wire import data_types, tensors
from sluice.wire.protos.tensorflow_pb2 import DataType, TensorProto

COMMON = [
    DataType.DT_FLOAT,
    DataType.DT_DOUBLE,
    DataType.DT_INT32,
    DataType.DT_UINT8,
    DataType.DT_INT16,
    DataType.DT_INT8,
    DataType.DT_COMPLEX64,
    DataType.DT_INT64,
    DataType.DT_BOOL,
    DataType.DT_BFLOAT16,
    DataType.DT_UINT16,
    DataType.DT_COMPLEX128,
    DataType.DT_HALF,
    DataType.DT_UINT32,
    DataType.DT_UINT64,
    DataType.DT_STRING,
]

FLOATS = st.lists(st.floats(allow_nan=False, width=32), max_size=4)


def protos():
    return st.builds(
        TensorProto,
        dtype=st.sampled_from(COMMON),
        tensor_shape=st.lists(st.integers(-1, 3), max_size=3).map(tensors.encode_shape),
        tensor_content=st.just(b"") | st.binary(max_size=16),
        float_val=FLOATS,
        double_val=FLOATS,
        int_val=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4),
        string_val=st.lists(st.binary(max_size=3), max_size=4),
        scomplex_val=FLOATS.map(lambda values: values[: len(values) // 2 * 2]),
        dcomplex_val=FLOATS.map(lambda values: values[: len(values) // 2 * 2]),
        int64_val=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
        bool_val=st.lists(st.booleans(), max_size=4),
        half_val=st.lists(st.integers(0, 2**15 - 2), max_size=4),
        uint32_val=st.lists(st.integers(0, 2**32 - 1), max_size=4),
        uint64_val=st.lists(st.integers(0, 2**64 - 1), max_size=4),
    )


def outcome(decode, proto):
    """The elements, or None where the proto is refused."""
    try:
        array = decode(proto)
    except (data_types.TensorError, tf.errors.InvalidArgumentError):
        return None
    return array.shape, array.tolist() if array.dtype == object else array.tobytes()


def decode_by_tensorflow(proto):
    dtype = tf.as_dtype(proto.dtype)
    return np.asarray(
        tf.io.parse_tensor(proto.SerializeToString(), dtype).numpy(), dtype.as_numpy_dtype
    )


@settings(max_examples=400)
@given(proto=protos())
@example(TensorProto(dtype=DataType.DT_BOOL, tensor_content=b"\2"))
@example(
    TensorProto(dtype=DataType.DT_INT8, tensor_shape=tensors.encode_shape([2]), int_val=[300, -300])
)
def test_any_proto_is_read_as_tensorflow_reads_it(proto):
    assert outcome(tensors.decode_tensor, proto) == outcome(decode_by_tensorflow, proto)


@pytest.mark.parametrize(
    ("dtype", "content"),
    list(itertools.product(COMMON, (False, True))),
    ids=lambda value: DataType.Name(value) if value > 1 else str(value),
)
def test_what_is_written_tensorflow_reads(dtype, content):
    numpy_dtype = data_types.numpy_dtype(dtype)
    array = (
        np.array([[b"a"], [b"\0b"]], object)
        if numpy_dtype.kind == "O"
        else (np.array([[0], [1]]).astype(numpy_dtype))
    )
    written = tensors.encode_tensor(array, content)
    assert outcome(decode_by_tensorflow, written) == outcome(tensors.decode_tensor, written)

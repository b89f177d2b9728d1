"""What an encoder writes, the decoder beside it reads: arrays survive every pair."""

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.gateway.decode.numpy_files import decode_npy, decode_npz
from service.gateway.decode.oip import decode_infer
from service.gateway.decode.tfs_json import decode_predict
from service.gateway.encode.numpy_files import encode_npy, encode_npz
from service.gateway.encode.oip import encode_infer
from service.gateway.encode.tfs_json import encode_predict
from service.gateway.query import OipQuery, TfsQuery
from service.gateway.signatures import Signatures
from sluice.wire.data_types import data_type_of
from sluice.wire.model_ref import ModelRef
from sluice.wire.protos.tensorflow_pb2 import SignatureDef
from sluice.wire.tensors import encode_shape

MODEL = ModelRef("m")
shapes = arrays.array_shapes(min_dims=1, max_dims=4, max_side=4)
numbers = st.sampled_from(["<f4", "<f8", "i1", "u1", "<i4", "<i8", "?"]).flatmap(
    lambda dtype: arrays.arrays(dtype, shapes)
)
strings = st.lists(st.binary(max_size=9), min_size=1, max_size=5).map(
    lambda values: np.array([*values, b""], object)[:-1]
)
texts = st.lists(st.text(max_size=9), min_size=1, max_size=5).map(
    lambda values: np.array([*(text.encode("utf-8", "replace") for text in values), b""], object)[
        :-1
    ]
)


def signatures(array):
    """A model that takes this array and gives it back."""
    proto = SignatureDef()
    for side in (proto.inputs, proto.outputs):
        side["x"].dtype = data_type_of(array.dtype)
        side["x"].tensor_shape.CopyFrom(encode_shape([-1] * array.ndim))
    return Signatures({"serving_default": proto})


def check(read, array):
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


@given(numbers | strings, st.booleans())
def test_tfs_json(array, row_format):
    known = signatures(array)
    query = TfsQuery(known.get(), {"x": array}, row_format)
    document = json.loads(encode_predict({"x": array}, query))
    answer, ask = ("predictions", "instances") if row_format else ("outputs", "inputs")
    body = json.dumps({ask: document[answer]}).encode()
    check(decode_predict(body, known).inputs["x"], array)


@given(numbers | strings)
def test_oip_binary(array):
    known = signatures(array)
    body = encode_infer({"x": array}, 1, MODEL, OipQuery(known.get(), {}, binary_outputs=True))
    check(decode_infer(*as_request(body), known).inputs["x"], array)


@given(numbers | texts)
def test_oip_json(array):
    known = signatures(array)
    body = encode_infer({"x": array}, 1, MODEL, OipQuery(known.get(), {}))
    check(decode_infer(*as_request(body), known).inputs["x"], array)


def as_request(body):
    """An infer answer's outputs as a request's inputs: (body, JSON length)."""
    length = len(body.data) if body.json_length is None else body.json_length
    document = json.loads(body.data[:length])
    head = json.dumps({"inputs": document["outputs"]}).encode()
    return head + body.data[length:], len(head)


@given(numbers)
def test_numpy_files(array):
    known = signatures(array)
    check(decode_npy(encode_npy({"x": array}), known).inputs["x"], array)
    check(decode_npz(encode_npz({"x": array}), known, 1 << 20).inputs["x"], array)

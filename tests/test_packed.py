"""sluice.wire.packed: numbers that were cut out of a message are those that protobuf reads, and are
read in pieces between which other threads run."""

import tracemalloc

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from service.gateway.decode.oip_proto import decode_model_infer
from service.gateway.errors import InvalidInput, MalformedRequest
from service.gateway.rpc.oip import Oip
from service.gateway.rpc.tfs import Tfs
from service.gateway.signatures import Signatures
from sluice.wire import large_tensors, packed
from sluice.wire.data_types import FORMS, TensorError, form_of
from sluice.wire.protos.inference_pb2 import InferTensorContents, ModelInferRequest
from sluice.wire.protos.serving_pb2 import PredictRequest
from sluice.wire.protos.tensorflow_pb2 import (
    DataType,
    SignatureDef,
    TensorInfo,
    TensorProto,
    TensorShapeProto,
)
from sluice.wire.tensors import decode_shape, decode_tensor, encode_shape
from sluice.wire.varint import head

MANY = 20 * packed.PIECE_BYTES
INT64 = 3  # the field of InferTensorContents


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(large_tensors, "LARGE", 8)
    monkeypatch.setattr(packed, "PIECE_BYTES", 3)


def infer_request(contents, name=b"x"):
    """Serialized, of one input with these serialized contents."""
    tensor = head(1, len(name)) + name + head(5, len(contents)) + contents
    return head(5, len(tensor)) + tensor


def cut(data):
    return large_tensors.cut_values(data, 5, 5, InferTensorContents)


def put_back(data):
    """The message of `data`, read by way of `cut_values`."""
    rest, values = cut(data)
    request = ModelInferRequest.FromString(rest)
    for tensor in request.inputs:
        for name, each in values.get(tensor.name, {}).items():
            assert not getattr(tensor.contents, name)
            getattr(tensor.contents, name).extend(each.read(each.count()).tolist())
    return request


CONTENTS = st.builds(
    InferTensorContents,
    bool_contents=st.lists(st.booleans()),
    int_contents=st.lists(st.integers(-(2**31), 2**31 - 1)),
    int64_contents=st.lists(st.integers(-(2**63), 2**63 - 1)),
    uint_contents=st.lists(st.integers(0, 2**32 - 1)),
    uint64_contents=st.lists(st.integers(0, 2**64 - 1)),
    fp32_contents=st.lists(st.floats(width=32, allow_nan=False)),
    fp64_contents=st.lists(st.floats(allow_nan=False)),
    bytes_contents=st.lists(st.binary(max_size=4), max_size=4),
).map(InferTensorContents.SerializeToString)
EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from("xid"), st.binary(max_size=4)), max_size=3
)


@pytest.mark.usefixtures("small_pieces")
def test_whatever_bytes_come_it_reads_them_as_protobuf_does():
    @given(first=CONTENTS, second=CONTENTS, edits=EDITS)
    def check(first, second, edits):
        # Of a field that comes twice the values follow each other.
        data = bytearray(infer_request(first + second) + infer_request(second, b"y"))
        for where, how, new in edits:
            at = round(where * len(data))
            data[at : at + {"x": len(new), "i": 0, "d": 3}[how]] = b"" if how == "d" else new
        try:
            expected = ModelInferRequest.FromString(bytes(data))
        except DecodeError:
            with pytest.raises(DecodeError):
                put_back(bytes(data))
        else:
            assert put_back(bytes(data)).SerializeToString() == expected.SerializeToString()

    check()


def test_what_is_cut_is_no_more_than_the_numbers():
    numbers = head(INT64, MANY) + b"\1" * MANY
    rest, values = cut(infer_request(numbers))
    assert ModelInferRequest.FromString(rest).inputs[0].HasField("contents")
    assert len(rest) < 20
    assert values["x"]["int64_contents"].count() == MANY


@pytest.mark.parametrize(
    "data",
    [
        infer_request(head(INT64, MANY) + b"\1" * MANY + b"\x18\1"),
        infer_request(head(INT64, MANY) + b"\1" * (MANY - 1) + b"\x80"),
        infer_request(head(6, MANY + 1) + b"\1" * (MANY + 1)),
        2 * infer_request(head(INT64, MANY) + b"\1" * MANY),
    ],
    ids=["some one by one", "a number without an end", "half a float", "a name twice"],
)
def test_what_is_irregular_is_left_to_protobuf(data):
    assert cut(data) == (data, {})


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("data_type", [each for each, form in FORMS.items() if form.stored != "O"])
@pytest.mark.parametrize("size", [0, 1, 8, 30, 90])
def test_a_tensor_of_values_that_were_cut_out_is_the_same(data_type, size):
    form = form_of(data_type)
    whole = TensorProto(dtype=data_type, tensor_shape=encode_shape([size]))
    if form.field == "float8_val":
        whole.float8_val = bytes(range(60))
    else:
        getattr(whole, form.field).extend([each % 2 for each in range(60)])
    request = PredictRequest()
    request.inputs["x"].CopyFrom(whole)
    rest, values = large_tensors.cut_values(request.SerializeToString(), 2, 2, TensorProto)
    assert (form.field == "float8_val") == (not values)
    proto = PredictRequest.FromString(rest).inputs["x"]
    read = decode_tensor(proto, values=values.get("x"))
    assert read.dtype == form.dtype
    assert read.tobytes() == decode_tensor(whole).tobytes()


def decode(contents, count, data_type=DataType.DT_INT64, datatype="INT64"):
    """What the gateway makes of an input of so many elements, whose contents are serialized."""
    spec = TensorInfo(dtype=data_type, tensor_shape=encode_shape([-1]))
    known = Signatures({"serving_default": SignatureDef(inputs={"x": spec}, outputs={"y": spec})})
    rest, values = cut(infer_request(contents))
    request = ModelInferRequest.FromString(rest)
    request.inputs[0].datatype = datatype
    request.inputs[0].shape.append(count)
    return decode_model_infer(request, known, values).inputs["x"]


def test_a_number_without_an_end_is_its_senders_fault():
    endless = b"\x80" * 30 + b"\1"  # no number has so many bytes
    numbers = b"\1" * MANY + endless
    contents = head(INT64, len(numbers)) + numbers
    with pytest.raises(MalformedRequest, match=r"int64_contents: .* corrupt"):
        decode(contents, MANY + 1)
    _, values = large_tensors.cut_values(
        infer_request(contents.replace(head(INT64, len(numbers)), head(10, len(numbers)))),
        5,
        5,
        TensorProto,
    )
    proto = TensorProto(dtype=DataType.DT_INT64, tensor_shape=encode_shape([MANY + 1]))
    with pytest.raises(TensorError, match=r"int64_val cannot be read: .* corrupt"):
        decode_tensor(proto, values=values["x"])


def test_values_that_are_too_many_for_the_shape_are_refused_before_they_are_read(monkeypatch):
    monkeypatch.setattr(packed.Packed, "read", None)
    with pytest.raises(InvalidInput, match=rf"expected 1 elements .* got {MANY}"):
        decode(head(INT64, MANY) + b"\1" * MANY, 1)


@pytest.mark.parametrize("raw", [[], [b""]], ids=["typed", "raw"])
def test_of_a_shape_with_millions_of_sizes_no_list_is_made(raw):
    spec = TensorInfo(dtype=DataType.DT_INT64, tensor_shape=encode_shape([-1]))
    known = Signatures({"serving_default": SignatureDef(inputs={"x": spec}, outputs={"y": spec})})
    sizes = head(3, MANY) + b"\1" * MANY
    request = ModelInferRequest(raw_input_contents=raw)
    request.inputs.add(name="x", datatype="INT64").MergeFromString(sizes)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput, match=f"got {MANY} axes, where 64 is the most"):
            decode_model_infer(request, known)
        assert tracemalloc.get_traced_memory()[1] < MANY  # bytes; a list takes eight for each
    finally:
        tracemalloc.stop()


def test_no_size_is_read_of_a_tensor_shape_with_too_many():
    many = 1 << 17
    proto = TensorShapeProto.FromString(b"\x12\0" * many)
    tracemalloc.start()
    try:
        with pytest.raises(TensorError, match=f"{many} dimensions; at most 64"):
            decode_shape(proto)
        assert tracemalloc.get_traced_memory()[1] < many
    finally:
        tracemalloc.stop()


def test_protobuf_is_given_one_piece_at_a_time(monkeypatch):
    """Between two of its calls other threads run, in none."""
    given = []
    pieces = packed.Packed._pieces

    def seen(self):
        for piece in pieces(self):
            given.append(len(piece))
            yield piece

    monkeypatch.setattr(packed.Packed, "_pieces", seen)
    assert decode(head(INT64, MANY) + b"\1" * MANY, MANY).sum() == MANY
    assert sum(given) == MANY
    assert max(given) <= packed.PIECE_BYTES + 10


@pytest.mark.parametrize("by", ["oip", "tfs"])
def test_a_gateway_parses_no_number_in_its_event_loop(by):
    """What its methods' `parse` leaves to protobuf in the loop is a few bytes."""
    if by == "oip":
        parse = Oip(None).methods()["ModelInfer"].parse
        data = infer_request(head(INT64, MANY) + b"\1" * MANY)
    else:
        parse = Tfs(None).prediction_service()["Predict"].parse
        tensor = head(10, MANY) + b"\1" * MANY
        entry = head(1, 1) + b"x" + head(2, len(tensor)) + tensor
        data = head(2, len(entry)) + entry
    _, call = parse(data)
    assert call.request.ByteSize() < 20
    [values] = call.values["x"].values()
    assert values.count() == MANY
    assert call.size == len(data)

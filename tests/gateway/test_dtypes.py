"""Every dtype through every dialect, as an input and as an output: the same values, or a refusal
that names a dialect which carries it."""

import json

import ml_dtypes
import numpy as np
import pytest

from service.gateway.answer import Answer
from service.gateway.decode.numpy_files import decode_npy, decode_npz
from service.gateway.decode.oip import decode_infer
from service.gateway.decode.oip_proto import decode_model_infer
from service.gateway.decode.tfs_json import decode_predict
from service.gateway.decode.tfs_proto import decode_predict as decode_predict_request
from service.gateway.encode.numpy_files import encode_npy, encode_npz
from service.gateway.encode.oip import encode_infer
from service.gateway.encode.oip_proto import encode_model_infer
from service.gateway.encode.tfs_json import encode_predict
from service.gateway.encode.tfs_proto import encode_predict as encode_predict_response
from service.gateway.errors import InvalidInput, NotAcceptable
from service.gateway.query import OipQuery, TfsQuery
from service.gateway.signatures import Signatures, validate
from sluice.wire.data_types import data_type_of, numpy_dtype
from sluice.wire.model_ref import ModelRef
from sluice.wire.protos.inference_pb2 import ModelInferRequest
from sluice.wire.protos.serving_pb2 import PredictRequest, PredictResponse
from sluice.wire.protos.tensorflow_pb2 import DataType, SignatureDef
from sluice.wire.tensors import encode_shape, encode_tensor
from tests.gateway.numpy_files import npy, npz

MODEL = ModelRef("m")
UNHOLDABLE = {"DT_INVALID", "DT_RESOURCE", "DT_VARIANT"}  # no array holds them

JSON, NUMPY, OIP, GRPC = (
    {"tfs json"},
    {"npy", "npz"},
    {"oip json", "oip binary", "grpc oip"},
    {"grpc tfs"},
)
EVERYWHERE = JSON | NUMPY | OIP | GRPC
# By dtype: what carries it, and values that a careless way would change.
TABLE = {
    "bool": (EVERYWHERE, [True, False]),
    **{
        name: (EVERYWHERE, [np.iinfo(name).min, 0, np.iinfo(name).max])
        for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    },
    "float16": (EVERYWHERE, [0.5, -65504.0, 6e-8]),
    "bfloat16": (EVERYWHERE, [0.5, -3e38, 1e-38]),
    "float32": (EVERYWHERE, [0.1, -3e38, np.inf]),
    "float64": (EVERYWHERE, [0.1, -1e300, np.inf]),
    "float8_e5m2": (JSON | NUMPY | GRPC, [0.5, -57344.0]),
    "float8_e4m3fn": (JSON | NUMPY | GRPC, [0.5, -448.0]),
    "int4": (JSON | NUMPY | GRPC, [-8, 0, 7]),
    "uint4": (JSON | NUMPY | GRPC, [0, 15]),
    "complex64": (NUMPY | GRPC, [1 + 2j, -0.5j]),
    "complex128": (NUMPY | GRPC, [1 + 2j, -0.1j]),
    "object": (EVERYWHERE, [b"text", "é".encode(), b""]),
    **{name: (GRPC, [(1,), (2,)]) for name in ("qint8", "qint16", "qint32", "quint8", "quint16")},
}
BY_NAME = {
    dtype.names[0] if dtype.names else dtype.name: dtype
    for dtype in (
        numpy_dtype(number) for name, number in DataType.items() if name not in UNHOLDABLE
    )
}


def signatures(array):
    """A model that takes columns of this dtype and gives them back."""
    proto = SignatureDef()
    for side in (proto.inputs, proto.outputs):
        side["x"].dtype = data_type_of(array.dtype)
        side["x"].tensor_shape.CopyFrom(encode_shape([-1]))
    return Signatures({"serving_default": proto})


def by_json(array, known):
    query = TfsQuery(known.get(), {"x": array}, row_format=False)
    document = json.loads(encode_predict({"x": array}, query))
    return decode_predict(json.dumps({"inputs": document["outputs"]}).encode(), known)


def by_npy(array, known):
    return decode_npy(encode_npy({"x": array}), known)


def by_npz(array, known):
    return decode_npz(encode_npz({"x": array}), known, 1 << 20)


def by_oip(array, known, binary):
    body = encode_infer({"x": array}, 1, MODEL, OipQuery(known.get(), {}, binary_outputs=binary))
    length = len(body.data) if body.json_length is None else body.json_length
    head = json.dumps({"inputs": json.loads(body.data[:length])["outputs"]}).encode()
    return decode_infer(head + body.data[length:], len(head), known)


def by_grpc(array, known):
    raw = encode_predict_response(Answer({"x": array}, 1), MODEL, "serving_default")
    request = PredictRequest(inputs=PredictResponse.FromString(raw).outputs)
    return decode_predict_request(request, {}, known, 1 << 20)


def by_grpc_oip(array, known):
    answer = encode_model_infer({"x": array}, 1, MODEL, OipQuery(known.get(), {}))
    request = ModelInferRequest(raw_input_contents=answer.raw_output_contents)
    for tensor in answer.outputs:
        request.inputs.add().MergeFromString(tensor.SerializeToString())
    return decode_model_infer(request, known)


# By dialect: an output as it is written, read as the input that it could be.
THERE_AND_BACK = {
    "tfs json": by_json,
    "npy": by_npy,
    "npz": by_npz,
    "oip json": lambda array, known: by_oip(array, known, binary=False),
    "oip binary": lambda array, known: by_oip(array, known, binary=True),
    "grpc tfs": by_grpc,
    "grpc oip": by_grpc_oip,
}


def infer(known, **tensor):
    return decode_infer(json.dumps({"inputs": [{"name": "x", **tensor}]}).encode(), None, known)


def model_infer(known, datatype):
    request = ModelInferRequest()
    request.inputs.add(name="x", shape=[1], datatype=datatype).contents.fp32_contents.append(1)
    return decode_model_infer(request, known)


# By dialect: how a number is asked in it that the model's dtype cannot be asked in.
ASKING_IN_VAIN = {
    "tfs json": [lambda known, _: decode_predict(b'{"inputs": [1]}', known)],
    "npy": [lambda known, _: decode_npy(npy(np.int8([1])), known)],
    "npz": [lambda known, _: decode_npz(npz(x=np.int8([1])), known, 1 << 20)],
    "oip json": [
        lambda known, name: infer(known, shape=[1], datatype=name, data=[1]),
        lambda known, _: infer(known, shape=[1], datatype="BYTES", data=["1"]),
    ],
    "oip binary": [
        lambda known, name: infer(
            known, shape=[1], datatype=name, parameters={"binary_data_size": 0}
        )
    ],
    "grpc oip": [model_infer],
}
# One of these is named by every refusal.
NAMES = {"JSON": JSON, ".npy and .npz files": NUMPY, "gRPC's PredictRequest": GRPC}


def test_the_table_holds_every_dtype():
    assert set(TABLE) == set(BY_NAME)


def of_table(dtype):
    return np.array(TABLE[dtype][1], BY_NAME[dtype])


@pytest.mark.parametrize("dialect", THERE_AND_BACK)
@pytest.mark.parametrize("dtype", TABLE)
def test_what_is_carried_comes_back_as_it_was(dtype, dialect):
    array, known = of_table(dtype), signatures(of_table(dtype))
    if dialect in TABLE[dtype][0]:
        read = validate(known.get(), THERE_AND_BACK[dialect](array, known).inputs)["x"]
        assert read.dtype == array.dtype
        assert read.tolist() == array.tolist()
        return
    with pytest.raises(NotAcceptable) as refused:
        THERE_AND_BACK[dialect](array, known)
    check_refusal(str(refused.value), 'Output "x": ', dtype)


@pytest.mark.parametrize("dialect", ASKING_IN_VAIN)
@pytest.mark.parametrize("dtype", [name for name in TABLE if TABLE[name][0] != EVERYWHERE])
def test_what_is_not_carried_is_not_taken(dtype, dialect):
    if dialect in TABLE[dtype][0]:
        return
    for ask in ASKING_IN_VAIN[dialect]:
        with pytest.raises(InvalidInput) as refused:
            ask(signatures(of_table(dtype)), dtype.upper())
        check_refusal(str(refused.value), "inputs.x", dtype)


def check_refusal(message, start, dtype):
    assert message.startswith(start)
    assert f"cannot carry {dtype};" in message
    named = message.partition(f"cannot carry {dtype};")[2]
    assert {words for words in NAMES if words in named} == {
        words for words, dialects in NAMES.items() if dialects <= TABLE[dtype][0]
    }


def test_what_grpc_carries_is_all_of_it():
    for dtype in TABLE:
        request = PredictRequest()
        request.inputs["x"].CopyFrom(encode_tensor(of_table(dtype), content=True))
        known = signatures(of_table(dtype))
        read = decode_predict_request(request, {}, known, 1 << 20).inputs["x"]
        assert read.tolist() == of_table(dtype).tolist()


@pytest.mark.parametrize("count", [3, 600])
@pytest.mark.parametrize("dtype", ["float8_e5m2", "bfloat16", "int4"])
def test_many_and_few_are_written_alike(dtype, count):
    array = np.ones(count, BY_NAME[dtype])
    assert by_json(array, signatures(array)).inputs["x"].tolist() == array.tolist()


# numpy's files are read by JSON's rules.


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (np.float64([0.1, 1e39]), np.float32([0.1, np.inf])),
        (np.int64([1, 2]), np.float32([1, 2])),
        (np.int64([0, 255]), np.uint8([0, 255])),
        (np.float64([0.5]), np.array([0.5], ml_dtypes.bfloat16)),
        (np.int64([-8, 7]), np.array([-8, 7], ml_dtypes.int4)),
        (np.complex128([1 + 2j]), np.complex64([1 + 2j])),
    ],
    ids=lambda array: array.dtype.name,
)
def test_a_numpy_file_becomes_the_models_dtype(given, wanted):
    for query in (
        decode_npy(npy(given), signatures(wanted)),
        decode_npz(npz(x=given), signatures(wanted), 1 << 20),
    ):
        assert query.inputs["x"].dtype == wanted.dtype
        assert query.inputs["x"].tolist() == wanted.tolist()


@pytest.mark.parametrize(
    ("given", "wanted", "message"),
    [
        (np.int64([0, 256]), "uint8", r"inputs.x at [1]: expected uint8, 0 to 255, got 256"),
        (np.int64([7, 8]), "int4", r"inputs.x at [1]: expected int4, -8 to 7, got 8"),
        (np.float64([1]), "int32", 'got float64 values (numpy: .astype("int32"))'),
        (np.float64([1e9]), "float8_e4m3fn", "expected float8_e4m3fn [N], numbers that it holds"),
        (np.array([True]), "float32", "expected float32 [N], got bool values"),
        (np.float32([1]), "bool", "expected bool [N], got float32 values"),
        (np.array(["1"]), "float32", "expected float32 [N], got string values"),
        (np.complex64([1j]), "float32", "expected float32 [N], got complex64 values"),
    ],
)
def test_a_numpy_file_that_would_lose_something_is_refused(given, wanted, message):
    known = signatures(np.zeros(1, BY_NAME[wanted]))
    with pytest.raises(InvalidInput) as refused:
        validate(known.get(), decode_npy(npy(given), known).inputs)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("dtype", "number", "message"),
    [
        ("int4", "8", "expected int4, -8 to 7, got 8"),
        ("uint4", "1.0", "expected uint4, a whole number written without a point"),
        ("float8_e4m3fn", "1e9", "expected float8_e4m3fn, a number that it holds, got 1000000000"),
    ],
)
def test_json_that_would_lose_something_is_refused(dtype, number, message):
    known = signatures(np.zeros(1, BY_NAME[dtype]))
    with pytest.raises(InvalidInput) as refused:
        decode_predict(b'{"inputs": [%b]}' % number.encode(), known)
    assert message in str(refused.value)


def test_a_zero_byte_at_a_strings_end_is_not_lost_in_silence():
    outputs = {"x": np.array([b"a\0"], object)}
    for encode in (encode_npy, encode_npz):
        with pytest.raises(NotAcceptable, match="end in a zero byte"):
            encode(outputs)

"""Bodies of JSON that lie, that are none, or that would become more than they are."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.gateway.decode import json_documents
from service.gateway.decode.examples import decode_examples
from service.gateway.decode.flat_tensors import MAX_OTHERS, parse_flat_tensors
from service.gateway.decode.foreign import door
from service.gateway.decode.images import ImageOptions, decode_form, decode_image
from service.gateway.decode.json_documents import MAX_VALUES, parse_object
from service.gateway.decode.numpy_files import decode_npy, decode_npz
from service.gateway.decode.oip import decode_infer, parse_json_length
from service.gateway.decode.oip_proto import decode_model_infer
from service.gateway.decode.tfs_json import decode_predict
from service.gateway.decode.tfs_proto import decode_predict as decode_predict_proto
from service.gateway.errors import GatewayError, InvalidInput, MalformedRequest, did_you_mean, shown
from service.gateway.signatures import Signatures
from sluice.wire.data_types import data_type_of
from sluice.wire.oip_tensors import DATATYPES, datatype_of
from sluice.wire.protos.inference_pb2 import ModelInferRequest
from sluice.wire.protos.serving_pb2 import PredictRequest
from sluice.wire.protos.tensorflow_pb2 import SignatureDef
from sluice.wire.tensors import encode_shape


def signatures(**inputs):
    """Signatures of these inputs, name=(dtype, shape), and of one output."""
    proto = SignatureDef()
    for name, (dtype, shape) in inputs.items():
        proto.inputs[name].dtype = data_type_of(dtype)
        proto.inputs[name].tensor_shape.CopyFrom(encode_shape(shape))
    proto.outputs["y"].dtype = data_type_of("<f4")
    return Signatures({"serving_default": proto})


ONE = signatures(x=("<f4", [-1]))
TEXT = signatures(x=(object, [-1]))


# The door


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("no\nsuch thing" + "x" * 1000), r"ValueError: no\\nsuch"),
        (ZeroDivisionError(), "ZeroDivisionError$"),
        (MemoryError(), "more memory than there is"),
        (RecursionError("deep"), "nested too deeply"),
    ],
)
def test_what_a_library_raises_is_a_malformed_request_and_is_logged(error, reason, caplog):
    @door("The thing")
    def decode():
        raise error

    with pytest.raises(MalformedRequest, match=f"The thing cannot be read: .*{reason}") as raised:
        decode()
    assert raised.value.__cause__ is error
    assert len(str(raised.value)) < 200
    assert caplog.records[0].exc_info[1] is error


def test_an_error_of_ours_passes_the_door_as_it_is(caplog):
    ours = InvalidInput("x", "this", "that")

    @door("The thing")
    def decode():
        raise ours

    with pytest.raises(InvalidInput) as raised:
        decode()
    assert raised.value is ours
    assert not caplog.records


class OutOfMemory(Signatures):
    def get(self, name="serving_default"):  # noqa: ARG002
        raise MemoryError


OPTIONS = ImageOptions(max_pixels=100)


@pytest.mark.parametrize(
    "decode",
    [
        lambda known: decode_predict(b'{"instances": [1]}', known),
        lambda known: decode_infer(b'{"inputs": []}', None, known),
        lambda known: decode_npy(b"", known),
        lambda known: decode_npz(b"", known, 100),
        lambda known: decode_image(b"", known, OPTIONS),
        lambda known: decode_form({}, {}, known, OPTIONS),
        lambda known: decode_predict_proto(PredictRequest(), {}, known, 100),
        lambda known: decode_model_infer(ModelInferRequest(), known),
    ],
)
def test_every_decoder_has_a_door(decode):
    with pytest.raises(MalformedRequest, match="more memory than there is"):
        decode(OutOfMemory({}))


def test_the_decoder_of_examples_has_a_door(monkeypatch):
    monkeypatch.setattr(json_documents.json, "JSONDecodeError", ZeroDivisionError)
    with pytest.raises(MalformedRequest):
        decode_examples(b"{")


# What a body may become

MEASURE = """
import resource, sys, time
from service.gateway.decode.tfs_json import decode_predict
from service.gateway.errors import GatewayError
from tests.gateway.test_hostile_json import ONE, body_of
unit, size = sys.argv[1].encode(), int(sys.argv[2])
body = body_of(unit, size)
decode_predict(b'{"instances": [1]}', ONE)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before, began = peak(), time.process_time()
try:
    decode_predict(body, ONE)
    message = ""
except GatewayError as error:
    message = str(error)
print(time.process_time() - began, (peak() - before) / len(body), message)
"""


def body_of(unit, size):
    return b'{"instances": [' + unit * (size // len(unit)) + b"0]}"


def measured(unit, size):
    """(CPU seconds, bytes taken for each byte of the body, the message of the refusal)."""
    run = [sys.executable, "-c", MEASURE, unit, str(size)]
    seconds, ratio, message = subprocess.run(
        run, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2]
    ).stdout.split(" ", 2)
    return float(seconds), float(ratio), message.strip()


@pytest.mark.parametrize(
    "unit", ["0,", "[],", "{},", '"",', '{"a":1},', '"ab",', "[[0]],", "null,"]
)
def test_a_large_body_of_small_values_is_refused_before_it_is_made_of_anything(unit):
    seconds, ratio, message = measured(unit, 63_000_000)
    assert "and JSON is read up to so many" in message
    assert seconds < 2, "on a busy machine; 0.05 on an idle one"
    assert ratio < 2


@pytest.mark.parametrize(
    ("unit", "most"), [("0,", 22), ("0.25,", 12), ("0.123456789012345678,", 5)]
)
def test_what_numbers_take_is_bounded_by_the_body(unit, most):
    _, ratio, message = measured(unit, 2 * MAX_VALUES - 100)
    assert not message
    assert ratio < most


def test_as_many_values_as_are_read_are_read(monkeypatch):
    """The bound of lists is not that of numbers, and commas in the document count as values."""
    tight = json_documents._Bound("values", 4, b",")
    monkeypatch.setattr(json_documents, "_BOUNDS", (tight,))
    monkeypatch.setattr(json_documents, "_FEWEST", 0)
    assert parse_object(b'{"x": [1, 2, 3, 4, 5]}') == {"x": [1, 2, 3, 4, 5]}
    with pytest.raises(MalformedRequest, match=r"more than 4 values.*\.npy"):
        parse_object(b'{"x": [1, 2, 3, 4, 5, 6]}')


def test_many_examples_of_many_numbers_are_read_together():
    features = {"i": list(range(1000)), "f": [0.5] * 1000, "big": [2**63]}
    with pytest.raises(MalformedRequest, match="/examples/0/big/0: expected a number"):
        decode_examples(json.dumps({"examples": [features]}).encode())
    del features["big"]
    query = decode_examples(json.dumps({"examples": [features]}).encode())
    feature = query.examples.example_list.examples[0].features.feature
    assert feature["i"].int64_list.value == features["i"]
    assert feature["f"].float_list.value == features["f"]


# Text that is none

HALF = "\\ud83d"


@pytest.mark.parametrize(
    "body",
    [
        '{"instances": ["%s"]}',
        '{"instances": [{"b64": "%s"}]}',
        '{"instances": [{"%s": 1}]}',
        '{"signature_name": "%s", "instances": ["a"]}',
        '{"%s": 1, "instances": ["a"]}',
        '{"inputs": [{"name": "%s"}]}',
        '{"id": "%s", "inputs": []}',
        '{"examples": [{"%s": 1}]}',
        '{"examples": [{"a": "%s"}]}',
    ],
)
def test_half_a_surrogate_pair_is_no_text(body):
    for decode in (
        lambda data: decode_predict(data, TEXT),
        lambda data: decode_infer(data, None, TEXT),
        decode_examples,
    ):
        with pytest.raises(MalformedRequest, match="half of a surrogate pair"):
            decode((body % HALF).encode())


def test_both_halves_are_a_character():
    query = decode_predict(b'{"instances": ["\\ud83d\\ude00 \\\\ud83d"]}', TEXT)
    assert query.inputs["x"].tolist() == ["\U0001f600 \\ud83d".encode()]


@pytest.mark.parametrize("name", ["a\0b", "a\nb", "\x1b[31m", "\u202eb", "n" * 1_000_000])
def test_a_name_is_repeated_on_one_line_and_in_part(name):
    for decode, document in (
        (decode_predict, {"instances": [{name: 1}]}),
        (lambda data, known: decode_infer(data, None, known), {"inputs": [{"name": name}]}),
    ):
        with pytest.raises(GatewayError) as raised:
            decode(json.dumps(document).encode(), ONE)
        assert str(raised.value).isprintable()
        assert len(str(raised.value)) < 300


def test_no_time_is_spent_on_what_is_near_to_a_long_name():
    assert did_you_mean("x" * 50_000_000, ["x" * 30, "y"]).startswith("; there are")
    assert shown("x" * 81) == "x" * 77 + "..."
    assert shown("a\ud800\n") == "a\\ud800\\n"


# The Open Inference Protocol


def tensor(**changes):
    return {"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2], **changes}


def infer(*tensors, known=ONE, **more):
    return decode_infer(json.dumps({"inputs": tensors, **more}).encode(), None, known)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datatype": ["FP32"]}, "expected a datatype .*, got a list of 1"),
        ({"datatype": {}}, "got an object with the keys none"),
        ({"datatype": 5}, "got 5"),
        ({"datatype": None}, "got null"),
        ({"datatype": "fp32"}, 'got the string "fp32"'),
        (
            {"shape": [-1, -2]},
            r"expected a shape, a list of sizes, got \[-1, -2\], with a size below 0",
        ),
        ({"shape": [1] * 100}, "100 axes, where 64 is the most"),
        ({"shape": [True, 2]}, "no list of whole numbers"),
        ({"shape": [[2]]}, "no list of whole numbers"),
        ({"shape": {"a": 1}}, "no list of whole numbers"),
        ({"shape": None}, "no list of whole numbers"),
        ({"shape": [2**62]}, "which is too large"),
        ({"shape": [2**40, 2**40, 0], "data": []}, "too large for no elements"),
        ({"shape": [2**30, 0], "data": []}, "too large for no elements"),
        ({"shape": [3]}, r"expected 3 elements for the shape \[3\], got 2"),
        ({"data": {"a": 1}}, "a list of elements in 'data'"),
        ({"data": "12"}, "a list of elements in 'data'"),
        ({"data": [[1], 2]}, "a list of 1, as its neighbours are"),
        ({"parameters": {"binary_data_size": [4]}}, "binary_data_size of 0 to 0.* got a list of 1"),
        ({"parameters": {"binary_data_size": True}}, "got true"),
    ],
)
def test_a_tensor_that_contradicts_itself(changes, message):
    with pytest.raises(InvalidInput, match=message):
        infer(tensor(**changes))


def test_a_tensor_is_named_once():
    with pytest.raises(MalformedRequest, match='/inputs/1: "x" stands there twice'):
        infer(tensor(), tensor())
    with pytest.raises(MalformedRequest, match='/outputs/1: "y" stands there twice'):
        infer(tensor(), outputs=[{"name": "y"}, {"name": "y"}])
    request = ModelInferRequest()
    for _ in range(2):
        request.inputs.add(name="x", datatype="FP32", shape=[0])
        request.outputs.add(name="y")
    with pytest.raises(MalformedRequest, match='/inputs/1: "x" stands there twice'):
        decode_model_infer(request, ONE)
    del request.inputs[1]
    with pytest.raises(MalformedRequest, match='/outputs/1: "y" stands there twice'):
        decode_model_infer(request, ONE)


@pytest.mark.parametrize(
    "text", ["9" * 5000, "9" * 19, "-1", "+1", "1.0", "", " 1", "１", "²", "0x1"]
)
def test_a_length_that_is_none(text):
    with pytest.raises(MalformedRequest, match="Inference-Header-Content-Length is") as raised:
        parse_json_length(text)
    assert len(str(raised.value)) < 250


def test_a_length():
    assert [parse_json_length(text) for text in (None, "0", "007", "9" * 18)] == [
        None,
        0,
        7,
        10**18 - 1,
    ]


@pytest.mark.parametrize(
    ("datatype", "raw", "message"),
    [
        ("BOOL", b"\2", "0 or 1 in each byte of a BOOL"),
        ("BYTES", b"\1\0\0", "a string's length in four bytes"),
        ("BYTES", b"\xff\xff\xff\xffabc", "a string of 4294967295 bytes"),
        ("BYTES", bytes(4 * (2**20 + 1)), "at most 1048576 strings"),
        ("FP64", b"1234567", "a multiple of 8 bytes"),
    ],
)
def test_raw_elements_that_are_none(datatype, raw, message):
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "x",
                    "shape": [1],
                    "datatype": datatype,
                    "parameters": {"binary_data_size": len(raw)},
                }
            ]
        }
    ).encode()
    with pytest.raises(InvalidInput, match=message):
        decode_infer(head + raw, len(head), ONE)


def test_typed_values_of_grpc_fit_their_datatype():
    request = ModelInferRequest()
    request.inputs.add(name="x", datatype="INT8", shape=[2]).contents.int_contents.extend([1, 128])
    with pytest.raises(InvalidInput, match=r"at /inputs/0/contents/int_contents/1: .*127, got 128"):
        decode_model_infer(request, ONE)
    request.inputs[0].contents.int_contents[1] = -128
    array = decode_model_infer(request, ONE).inputs["x"]
    assert (array.dtype, array.tolist()) == (np.int8, [1, -128])


flat = st.sampled_from(["<f4", "<f8", "<f2", "i1", "u1", "<i4", "<i8", "<u8"]).flatmap(
    lambda dtype: arrays.arrays(
        dtype,
        st.integers(1, 6),
        elements={"allow_nan": False, "allow_infinity": False} if "f" in dtype else None,
    )
)


@given(st.lists(flat, min_size=1, max_size=3))
def test_flat_lists_of_numbers_are_read_the_fast_way(tensors):
    document = {
        "id": "5",
        "parameters": {"x": {"y": [1, ""]}},
        "inputs": [
            {
                "name": str(index),
                "shape": list(array.shape),
                "datatype": datatype_of(array.dtype),
                "data": array.tolist(),
            }
            for index, array in enumerate(tensors)
        ],
        "outputs": [{"name": "y"}],
    }
    read = parse_flat_tensors(json.dumps(document).encode())
    assert read is not None
    for array, given_ in zip(tensors, read["inputs"], strict=True):
        np.testing.assert_array_equal(given_.pop("data"), array)
    for given_ in document["inputs"]:
        del given_["data"]
    assert read == document


@pytest.mark.parametrize(
    "document",
    [
        {"inputs": [tensor(data=[[1], [2]])]},
        {"inputs": [tensor(data=[1, [2, 3], []])]},
        {"inputs": [tensor(data=[1, None])]},
        {"inputs": [tensor(datatype="INT8", data=[128])]},
        {"inputs": [tensor(datatype="BYTES", data=["a"])]},
        {"inputs": [tensor(datatype="BOOL", data=[True])]},
        {"inputs": [tensor(datatype="BF16")]},
        {"inputs": [tensor(datatype=["FP32"])]},
        {"inputs": [tensor()], "id": "["},
        {"inputs": [{"name": "x"}]},
        {"inputs": [5]},
        {"inputs": {"data": [1]}},
        {"inputs": [tensor()], "more": [0] * MAX_OTHERS},
        {},
        [],
    ],
)
def test_the_fast_way_leaves_tensors_that_are_not_flat(document):
    assert parse_flat_tensors(json.dumps(document).encode()) is None


def test_a_key_with_a_nul_is_not_the_key_before_it():
    for body in (b'{"instances\\u0000": [1]}', b'{"instances": [{"x\\u0000": 1}]}'):
        with pytest.raises(GatewayError, match=r'got neither|has no input "x\\x00"'):
            decode_predict(body, ONE)
    assert parse_flat_tensors(b'{"inputs": [{"data\\u0000": [1], "datatype": "FP32"}]}') is None


def test_the_fast_way_leaves_equal_keys():
    for key in ("name", "data", "shape"):
        again = json.dumps(tensor())[:-1] + f', "{key}": [1]}}'
        assert parse_flat_tensors(f'{{"inputs": [{again}]}}'.encode()) is None
    assert parse_flat_tensors(b'{"inputs": [], "inputs": []}') is None
    assert parse_flat_tensors(b'{"inputs": [], "parameters": {"a": 1, "a": 2}}') is None


nested = st.recursive(
    st.integers(0, 9) | st.floats(width=32) | st.none() | st.just("1"),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300)
@given(st.lists(nested, max_size=4), st.sampled_from([*DATATYPES]), st.lists(st.integers(0, 4)))
def test_the_fast_way_and_the_careful_way_give_the_same_tensor(data, datatype, shape):
    known = signatures(x=("<f4", [-1]))
    tensors = [tensor(data=data, datatype=datatype, shape=shape)]
    if parse_flat_tensors(json.dumps({"inputs": tensors}).encode()) is None:
        return
    answers = []
    for more in ({}, {"id": "["}):  # with a bracket that stops the fast way
        try:
            answers.append(infer(*tensors, known=known, **more).inputs["x"])
        except GatewayError as error:
            answers.append(str(error))
    if isinstance(answers[0], str):
        assert answers[0] == answers[1]
    else:
        np.testing.assert_array_equal(*answers)
        assert answers[0].dtype == answers[1].dtype

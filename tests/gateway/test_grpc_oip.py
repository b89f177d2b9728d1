"""inference.GRPCInferenceService at the gateway: typed and raw tensors, several ways in and out."""

import ml_dtypes
import numpy as np
import pytest

from sluice.wire.oip_tensors import CONTENTS, DATATYPES, datatype_of, decode_raw, encode_raw
from sluice.wire.protos import inference_pb2 as inference
from sluice.wire.protos.inference_pb2_grpc import GRPCInferenceServiceStub
from tests.gateway.rollouts import eventually


@pytest.fixture
def stub(channel):
    return GRPCInferenceServiceStub(channel)


def strings(*values):
    array = np.empty(len(values), object)
    array[:] = values
    return array


def request(model, inputs, raw, **fields):
    made = inference.ModelInferRequest(model_name=model, **fields)
    for name, array in inputs.items():
        tensor = made.inputs.add(name=name, datatype=datatype_of(array.dtype), shape=array.shape)
        if raw:
            made.raw_input_contents.append(encode_raw(array))
        else:
            getattr(tensor.contents, CONTENTS[tensor.datatype]).extend(array.ravel().tolist())
    return made


def arrays(response):
    """The outputs by name, raw or typed."""
    found = {}
    for index, tensor in enumerate(response.outputs):
        dtype = DATATYPES[tensor.datatype]
        flat = (
            decode_raw(response.raw_output_contents[index], dtype)
            if response.raw_output_contents
            else np.array(getattr(tensor.contents, CONTENTS[tensor.datatype]), dtype)
        )
        found[tensor.name] = flat.reshape(tuple(tensor.shape))
    return found


EVERY_DTYPE = {
    "i32": np.int32([-7]),
    "i64": np.int64([2**40]),
    "u8": np.uint8([254]),
    "f64": np.float64([1.5]),
    "flag": np.array([True]),
    "text": strings(b"caf\xc3\xa9"),
}


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_every_dtype_goes_in_and_comes_out(stub, raw):
    response = stub.ModelInfer(request("dtypes", EVERY_DTYPE, raw, id="7"), timeout=30)
    assert (response.model_name, response.model_version, response.id) == ("dtypes", "1", "7")
    assert bool(response.raw_output_contents) is raw
    outputs = arrays(response)
    assert {name: array.tolist() for name, array in outputs.items()} == {
        "i32": [-6],
        "i64": [2**40 + 1],
        "u8": [255],
        "f64": [0.5],
        "flag": [False],
        "text": [b"CAF\xc3\xa9"],
        "raw_bytes": [b"caf\xc3\xa9"],
    }


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_several_inputs_and_the_outputs_that_are_wanted(stub, raw):
    inputs = {"image": np.ones((2, 2, 2, 1), "f4"), "meta": np.zeros((2, 3), "f4")}
    made = request("pair", inputs, raw)
    assert list(arrays(stub.ModelInfer(made, timeout=30))) == ["ranks", "score"]
    made.outputs.add(name="score")
    outputs = arrays(stub.ModelInfer(made, timeout=30))
    assert {name: array.tolist() for name, array in outputs.items()} == {"score": [[4.0], [4.0]]}


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=["FP16", "BF16"])
def test_narrower_floats_travel_raw(stub, dtype):
    made = request("affine", {"x": np.array([1, 2], dtype)}, raw=True)
    assert arrays(stub.ModelInfer(made, timeout=30))["y"].tolist() == [3.5, 4.0]


@pytest.mark.parametrize(("version", "y"), [("", 3.5), ("1", 2.5), ("2", 3.5), ("stable", 2.5)])
def test_a_version_is_a_number_or_a_label(stub, version, y):
    made = request("affine", {"x": np.float32([1])}, True, model_version=version)
    assert arrays(stub.ModelInfer(made, timeout=30))["y"].tolist() == [y]


def test_a_parameter_picks_the_signature(stub):
    made = request("echo", {"matrix": np.ones((1, 2, 3), "f4")}, True)
    made.parameters["signature_name"].string_param = "total"
    assert arrays(stub.ModelInfer(made, timeout=30))["total"].tolist() == [6.0]


X = {"x": np.float32([1])}


def bad(change, model="affine", inputs=X, raw=True):
    made = request(model, inputs, raw)
    change(made)
    return made


@pytest.mark.parametrize(
    ("made", "code", "message"),
    [
        (
            bad(lambda r: r.raw_input_contents.append(b"")),
            "INVALID_ARGUMENT",
            "/raw_input_contents: expected 1, one for each of the inputs, got 2",
        ),
        (
            bad(lambda r: r.inputs[0].contents.fp32_contents.append(1)),
            "INVALID_ARGUMENT",
            "/inputs/0/contents: expected none beside raw_input_contents",
        ),
        (
            bad(lambda r: r.raw_input_contents.__setitem__(0, b"xxx")),
            "INVALID_ARGUMENT",
            "inputs.x at /inputs/0: expected a multiple of 4 bytes, as FP32 takes, got 3",
        ),
        (
            bad(lambda r: r.inputs[0].shape.append(2)),
            "INVALID_ARGUMENT",
            "inputs.x at /inputs/0: expected 2 elements for the shape [1, 2], got 1",
        ),
        (
            bad(lambda r: r.inputs[0].shape.__setitem__(0, -1)),
            "INVALID_ARGUMENT",
            "a list of sizes",
        ),
        (
            bad(lambda r: setattr(r.inputs[0], "datatype", "FP16"), raw=False),
            "INVALID_ARGUMENT",
            "inputs.x at /inputs/0: expected raw_input_contents, as gRPC carries FP16, got none",
        ),
        (
            bad(lambda r: setattr(r.inputs[0], "datatype", "FLOAT")),
            "INVALID_ARGUMENT",
            "got the string",
        ),
        (
            bad(lambda r: setattr(r.inputs[0], "name", "xx")),
            "INVALID_ARGUMENT",
            'has no input "xx"; there is: "x"',
        ),
        (bad(lambda r: r.outputs.add(name="z")), "INVALID_ARGUMENT", 'has no output "z"'),
        (
            bad(
                lambda r: r.inputs[2].contents.uint_contents.__setitem__(0, 256),
                "dtypes",
                EVERY_DTYPE,
                raw=False,
            ),
            "INVALID_ARGUMENT",
            "inputs.u8 at /inputs/2/contents/uint_contents/0: expected uint8, 0 to 255, got 256",
        ),
        (
            request("echo", {"matrix": np.ones((1, 2, 2), "f4")}, True),
            "INVALID_ARGUMENT",
            "inputs.matrix: expected float32 [N,2,3], got [1,2,2]",
        ),
        (request("affine", {}, True), "INVALID_ARGUMENT", "needs the missing input"),
        (request("affine", {"x": np.float64([1])}, True), "INVALID_ARGUMENT", "got float64 values"),
        (request("nope", X, True), "NOT_FOUND", "nope"),
        (request("affine", X, True, model_version="9"), "NOT_FOUND", "9"),
        (request("affine", X, True, model_version="unheard"), "INVALID_ARGUMENT", "unheard"),
        (
            bad(
                lambda r: r.parameters["signature_name"].MergeFrom(
                    inference.InferParameter(string_param="nope")
                )
            ),
            "FAILED_PRECONDITION",
            'The model has no signature "nope"',
        ),
    ],
)
def test_a_request_that_does_not_fit(stub, made, code, message):
    call = stub.ModelInfer.future(made, timeout=30)
    assert call.code().name == code, call.details()
    assert message in call.details()


def test_the_server_and_its_models_describe_themselves(stub):
    assert stub.ServerLive(inference.ServerLiveRequest(), timeout=30).live
    assert eventually(lambda: stub.ServerReady(inference.ServerReadyRequest(), timeout=30).ready)
    assert stub.ServerMetadata(inference.ServerMetadataRequest(), timeout=30).name == "sluice"
    metadata = stub.ModelMetadata(inference.ModelMetadataRequest(name="pair"), timeout=30)
    assert [*metadata.versions] == ["1"]
    assert {each.name: (each.datatype, [*each.shape]) for each in metadata.inputs} == {
        "image": ("FP32", [-1, 2, 2, 1]),
        "meta": ("FP32", [-1, 3]),
    }
    assert {each.name for each in metadata.outputs} == {"score", "ranks"}


@pytest.mark.parametrize(
    ("name", "version", "ready"),
    [
        ("affine", "", True),
        ("affine", "1", True),
        ("affine", "stable", True),
        ("affine", "9", False),
        ("affine", "unheard", False),
        ("nope", "", False),
    ],
)
def test_a_model_that_is_not_there_is_not_ready(stub, name, version, ready):
    reply = stub.ModelReady(inference.ModelReadyRequest(name=name, version=version), timeout=30)
    assert reply.ready is ready

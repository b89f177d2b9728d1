"""The gateway's gRPC port: TensorFlow Serving's API and the Open Inference Protocol."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest
import requests
from google.protobuf import json_format, message_factory
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from tensorflow import make_tensor_proto
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from service.gateway import errors
from service.gateway.error_responses import grpc_code_of
from service.gateway.model_server import ERRORS
from sluice.wire.protos import POOL, serving_pb2
from sluice.wire.protos.reflection_pb2 import ServerReflectionRequest
from sluice.wire.protos.reflection_pb2_grpc import ServerReflectionStub
from sluice.wire.protos.serving_pb2_grpc import ModelServiceStub, PredictionServiceStub
from sluice.wire.protos.tensorflow_pb2 import TensorProto
from sluice.wire.tensors import encode_shape, encode_tensor

CONFORMANCE = Path(__file__).parent.parent / "conformance" / "grpc.jsonl"
NOT_OK = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
ROWS = [json.loads(line) for line in CONFORMANCE.read_text().splitlines()]

# Where the gateway is stricter on purpose: the code it answers, and why. docs/api.md lists them.
DEVIATIONS = {
    "predict, wrong shape": ("INVALID_ARGUMENT", "a shape that contradicts the signature"),
    "predict, wrong rank": ("INVALID_ARGUMENT", "a shape that contradicts the signature"),
    "predict, scalar for a vector": ("INVALID_ARGUMENT", "a shape that contradicts the signature"),
    "predict, empty batch": ("INVALID_ARGUMENT", "an empty batch"),
    "status, missing label": ("INVALID_ARGUMENT", "a label that no version has"),
}


def leaves(kind):
    """Every error that is raised: a class between them stands for those below it."""
    return {kind}.union(*map(leaves, kind.__subclasses__())) - {
        errors.GatewayError,
        errors.ModelServerError,
    }


def message_class(name):
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(name))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_an_exchange_is_the_recorded_one(channel, row):
    request = json_format.ParseDict(row["request"], message_class(row["request_type"])())
    code, _reason = DEVIATIONS.get(row["name"], (row["code"], None))
    call = channel.unary_unary(row["method"]).future(request.SerializeToString(), timeout=30)
    assert call.code().name == code, call.details()
    if code == "OK":
        reply = message_class(row["response_type"]).FromString(call.result())
        expected = json_format.ParseDict(row["response"], type(reply)(), descriptor_pool=POOL)
        assert unpacked(reply) == unpacked(expected)
    else:
        assert call.details()


def test_deviations_are_real():
    recorded = {row["name"]: row["code"] for row in ROWS}
    for name, (code, reason) in DEVIATIONS.items():
        assert recorded[name] != code, reason


def unpacked(message):
    """The message's JSON: a packed map has no order of its own on the wire."""
    return json_format.MessageToDict(message, descriptor_pool=POOL)


@pytest.mark.parametrize("kind", sorted(leaves(errors.GatewayError), key=str))
def test_every_error_has_a_grpc_code(kind):
    error = kind.__new__(kind)
    assert grpc.StatusCode[grpc_code_of(error)] is not grpc.StatusCode.OK


@pytest.mark.parametrize("code", NOT_OK)
def test_a_code_of_the_model_servers_comes_out_as_itself_or_its_like(code):
    coarser = {
        "CANCELLED": "UNAVAILABLE",  # a server that stops; callers of ours are told nothing
        "UNKNOWN": "INTERNAL",
        "ALREADY_EXISTS": "INTERNAL",
        "ABORTED": "INTERNAL",
        "PERMISSION_DENIED": "INTERNAL",
        "UNAUTHENTICATED": "INTERNAL",
        "DATA_LOSS": "INTERNAL",
        "OUT_OF_RANGE": "INVALID_ARGUMENT",
        "FAILED_PRECONDITION": "INVALID_ARGUMENT",
    }
    assert grpc_code_of(ERRORS[code]("")) == coarser.get(code.name, code.name)


def test_the_official_stubs_get_an_answer(channel):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "affine"
    request.inputs["x"].CopyFrom(make_tensor_proto([1.0, 2.0]))
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    assert list(stub.Predict(request, timeout=30).outputs["y"].float_val) == [3.5, 4.0]


def predict(channel, model, signature="", **inputs):
    """The call of Predict with a TensorProto, or an array, for each input."""
    request = serving_pb2.PredictRequest(
        model_spec=serving_pb2.ModelSpec(name=model, signature_name=signature)
    )
    for name, value in inputs.items():
        proto = value if isinstance(value, TensorProto) else encode_tensor(value, content=True)
        request.inputs[name].CopyFrom(proto)
    return PredictionServiceStub(channel).Predict.future(request, timeout=30)


X = np.float32([1])


@pytest.mark.parametrize(
    ("model", "inputs", "code", "message"),
    [
        (
            "echo",
            {"matrix": np.zeros((1, 2, 2), "f4")},
            "INVALID_ARGUMENT",
            "inputs.matrix: expected float32 [N,2,3], got [1,2,2] (axis 2 is 2, not 3)",
        ),
        (
            "pair",
            {"image": np.zeros((1, 2, 2), "f4"), "meta": np.zeros((1, 3), "f4")},
            "INVALID_ARGUMENT",
            "got [1,2,2] (the channel axis is missing)",
        ),
        (
            "pair",
            {"image": np.zeros((1, 2, 2, 1), "f4"), "meta": np.zeros((2, 3), "f4")},
            "INVALID_ARGUMENT",
            "inputs.meta: expected 1 rows, as in inputs.image, got 2 rows",
        ),
        ("pair", {"imag": X, "meta": X}, "INVALID_ARGUMENT", 'did you mean "image"?'),
        (
            "affine",
            {"x": np.int16([1])},
            "INVALID_ARGUMENT",
            "expected float32 [N], got int16 values",
        ),
        (
            "affine",
            {"x": TensorProto(dtype=1, tensor_shape=encode_shape([1 << 36]), float_val=[1])},
            "INVALID_ARGUMENT",
            "inputs.x: expected a tensor of at most 67108864 bytes",
        ),
        (
            "affine",
            {"x": TensorProto(dtype=1, tensor_shape=encode_shape([1 << 60]))},
            "INVALID_ARGUMENT",
            "2^40",
        ),
        (
            "affine",
            {"x": TensorProto(dtype=1, tensor_shape=encode_shape([-1]))},
            "INVALID_ARGUMENT",
            "is not fully known",
        ),
        ("affine", {"x": TensorProto(dtype=20)}, "INVALID_ARGUMENT", "DT_RESOURCE cannot be held"),
        ("nope", {"x": X}, "NOT_FOUND", "nope"),
    ],
)
def test_a_predict_request_that_does_not_fit_the_model(channel, model, inputs, code, message):
    call = predict(channel, model, **inputs)
    assert call.code().name == code
    assert message in call.details()


@pytest.mark.parametrize(
    "path",
    [
        "/tensorflow.serving.PredictionService/Predict",
        "/inference.GRPCInferenceService/ModelInfer",
        "/tensorflow.serving.ModelService/GetModelStatus",
    ],
)
def test_bytes_that_are_no_message(channel, path):
    call = channel.unary_unary(path).future(b"\xff" * 20, timeout=30)
    assert call.code() == grpc.StatusCode.INVALID_ARGUMENT
    request = {"Predict": "PredictRequest", "ModelInfer": "ModelInferRequest"}
    name = request.get(path.rpartition("/")[2], "GetModelStatusRequest")
    assert "The message cannot be read as a " in call.details()
    assert f".{name}: " in call.details()


def test_a_message_over_the_limit(launch_grpc_gateway, modelserver):
    _, address = launch_grpc_gateway(modelserver.address, max_body_bytes=10_000)
    with grpc.insecure_channel(address) as channel:
        assert predict(channel, "affine", x=np.zeros(5000, "f4")).code().name == (
            "RESOURCE_EXHAUSTED"
        )
        assert predict(channel, "affine", x=X).code() == grpc.StatusCode.OK
    with grpc.insecure_channel(address, compression=grpc.Compression.Gzip) as channel:
        assert predict(channel, "affine", x=np.zeros(5000, "f4")).code().name == (
            "RESOURCE_EXHAUSTED"
        ), "over the limit once it is unpacked"


def test_every_worker_answers_at_the_one_port(launch_grpc_gateway, modelserver):
    gateway, address = launch_grpc_gateway(modelserver.address, workers=2)
    gateway.wait_for("(?s)Answering gRPC.*Answering gRPC")
    for _ in range(10):
        with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            assert predict(channel, "affine", x=X).code() == grpc.StatusCode.OK


def test_models_are_not_changed_through_the_gateway(channel):
    stub = ModelServiceStub(channel)
    call = stub.HandleReloadConfigRequest.future(serving_pb2.ReloadConfigRequest(), timeout=30)
    assert call.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "to the model server itself" in call.details()


def test_health_is_readiness(channel, launch_grpc_gateway):
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", "inference.GRPCInferenceService"):
        reply = health.Check(HealthCheckRequest(service=service), timeout=30)
        assert reply.status == HealthCheckResponse.SERVING
    unknown = health.Check.future(HealthCheckRequest(service="nope"), timeout=30)
    assert unknown.code() == grpc.StatusCode.NOT_FOUND
    _, address = launch_grpc_gateway("127.0.0.1:1")
    with grpc.insecure_channel(address) as lonely:
        reply = health_pb2_grpc.HealthStub(lonely).Check(HealthCheckRequest(), timeout=30)
        assert reply.status == HealthCheckResponse.NOT_SERVING
        call = predict(lonely, "affine", x=X)
        assert call.code() == grpc.StatusCode.UNAVAILABLE, call.details()


def test_more_watchers_than_threads_hold_nobody_up(channel):
    health = health_pb2_grpc.HealthStub(channel)
    watches = [health.Watch(HealthCheckRequest(), timeout=60) for _ in range(20)]
    assert [next(watch).status for watch in watches] == [HealthCheckResponse.SERVING] * 20
    assert predict(channel, "affine", x=X).code() == grpc.StatusCode.OK
    for watch in watches:
        watch.cancel()


def test_reflection_lists_the_services_and_describes_their_messages(channel):
    questions = iter(
        [
            ServerReflectionRequest(list_services=""),
            ServerReflectionRequest(file_containing_symbol="inference.ModelInferRequest"),
        ]
    )
    services, file = ServerReflectionStub(channel).ServerReflectionInfo(questions, timeout=30)
    assert {each.name for each in services.list_services_response.service} >= {
        "tensorflow.serving.PredictionService",
        "tensorflow.serving.ModelService",
        "inference.GRPCInferenceService",
        "grpc.health.v1.Health",
    }
    assert file.file_descriptor_response.file_descriptor_proto


def test_calls_are_counted(channel, grpc_gateway):
    predict(channel, "affine", x=X).result()
    metrics = requests.get(f"{grpc_gateway[0].url}/metrics", timeout=30).text
    assert (
        'sluice_requests_total{dialect="tfs-grpc",model="affine",signature="serving_default",'
        'status="OK",verb="predict",version="2"}'
    ) in metrics


def test_a_port_that_is_taken_is_said_so():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        gateway = subprocess.run(
            [sys.executable, "-P", "-m", "service.cli", "gateway", "--http-port=1"],
            env=os.environ | {"SLUICE_GRPC_PORT": str(port), "SLUICE_HTTP_HOST": "127.0.0.1"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert gateway.returncode == 1
    assert f"SLUICE_GRPC_PORT: port {port} cannot be used (Address already in use)" in (
        gateway.stderr
    )

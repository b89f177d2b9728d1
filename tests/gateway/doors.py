"""Every way in to a prediction: `ask(door, user)` -> what a model answers to 0, and the version."""

from collections.abc import Callable

import grpc
import numpy as np
import requests

from sluice.wire.model_ref import ModelRef
from sluice.wire.protos import serving_pb2 as serving
from sluice.wire.protos.inference_pb2 import ModelInferRequest
from sluice.wire.protos.inference_pb2_grpc import GRPCInferenceServiceStub
from sluice.wire.protos.serving_pb2_grpc import PredictionServiceStub
from sluice.wire.protos.tensorflow_pb2 import Example
from sluice.wire.tensors import encode_tensor
from tests.gateway.rollouts import Door

Ask = Callable[..., tuple[float, int]]
X_0 = {1: 2.0, 2: 3.0}  # what each version of `moved` answers to 0


def _example() -> Example:
    example = Example()
    example.features.feature["x"].float_list.value.append(0)
    return example


def _input() -> serving.Input:
    given = serving.Input()
    given.example_list.examples.append(_example())
    return given


def _http(door: Door, path: str, body: object, user: str) -> requests.Response:
    reply = requests.post(f"{door.url}{path}", json=body, headers={"X-User": user}, timeout=30)
    assert reply.status_code == 200, reply.text
    return reply


def by_rest(door: Door, user: str, model: str = "moved") -> tuple[float, int]:
    reply = _http(door, f"/v1/models/{model}:predict", {"instances": [0.0]}, user)
    return reply.json()["predictions"][0], int(reply.headers["X-Sluice-Version"])


def by_oip(door: Door, user: str, model: str = "moved") -> tuple[float, int]:
    x = {"name": "x", "datatype": "FP32", "shape": [1], "data": [0.0]}
    reply = _http(door, f"/v2/models/{model}/infer", {"inputs": [x]}, user)
    assert reply.headers["X-Sluice-Version"] == reply.json()["model_version"]
    return reply.json()["outputs"][0]["data"][0], int(reply.json()["model_version"])


def by_regress(door: Door, user: str, model: str = "moved") -> tuple[float, int]:
    body = {"examples": [{"x": 0.0}], "signature_name": "regress"}
    reply = _http(door, f"/v1/models/{model}:regress", body, user)
    return reply.json()["results"][0], int(reply.headers["X-Sluice-Version"])


def by_classify(door: Door, user: str, model: str = "moved") -> tuple[float, int]:
    body = {"examples": [{"x": 0.0}], "signature_name": "classify"}
    reply = _http(door, f"/v1/models/{model}:classify", body, user)
    scores = dict(reply.json()["results"][0])
    return scores["high"], int(reply.headers["X-Sluice-Version"])


def by_grpc(door: Door, user: str, model: str = "moved") -> tuple[float, int]:
    request = serving.PredictRequest(model_spec=ModelRef(model).to_proto())
    request.inputs["x"].CopyFrom(encode_tensor(np.float32([0])))
    with grpc.insecure_channel(door.grpc) as channel:
        reply = PredictionServiceStub(channel).Predict(request, metadata=[("x-user", user)])
    return reply.outputs["y"].float_val[0], reply.model_spec.version.value


def by_grpc_multi(door: Door, user: str, model: str = "moved") -> tuple[float, int]:
    request = serving.MultiInferenceRequest(input=_input())
    task = request.tasks.add(method_name="tensorflow/serving/regress")
    task.model_spec.CopyFrom(ModelRef(model).to_proto("regress"))
    with grpc.insecure_channel(door.grpc) as channel:
        reply = PredictionServiceStub(channel).MultiInference(request, metadata=[("x-user", user)])
    [result] = reply.results
    return result.regression_result.regressions[0].value, result.model_spec.version.value


def by_grpc_regress(door: Door, user: str, model: str = "moved") -> tuple[float, int]:
    spec = ModelRef(model).to_proto("regress")
    request = serving.RegressionRequest(model_spec=spec, input=_input())
    with grpc.insecure_channel(door.grpc) as channel:
        reply = PredictionServiceStub(channel).Regress(request, metadata=[("x-user", user)])
    return reply.result.regressions[0].value, reply.model_spec.version.value


def by_grpc_classify(door: Door, user: str, model: str = "moved") -> tuple[float, int]:
    spec = ModelRef(model).to_proto("classify")
    request = serving.ClassificationRequest(model_spec=spec, input=_input())
    with grpc.insecure_channel(door.grpc) as channel:
        reply = PredictionServiceStub(channel).Classify(request, metadata=[("x-user", user)])
    [row] = reply.result.classifications
    scores = {each.label: each.score for each in row.classes}
    return scores["high"], reply.model_spec.version.value


def by_grpc_oip(door: Door, user: str, model: str = "moved") -> tuple[float, int]:
    request = ModelInferRequest(model_name=model)
    x = request.inputs.add(name="x", datatype="FP32", shape=[1])
    x.contents.fp32_contents.append(0)
    with grpc.insecure_channel(door.grpc) as channel:
        reply = GRPCInferenceServiceStub(channel).ModelInfer(request, metadata=[("x-user", user)])
    return reply.outputs[0].contents.fp32_contents[0], int(reply.model_version)


OF_EXAMPLES: list[Ask] = [
    by_regress,
    by_classify,
    by_grpc_multi,
    by_grpc_regress,
    by_grpc_classify,
]
DOORS: list[Ask] = [by_rest, by_oip, by_grpc, by_grpc_oip, *OF_EXAMPLES]

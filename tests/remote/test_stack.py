"""What any running stack must do, asked from outside, with input that is made up from what its
models say they take. `make test` asks a stack that is started here; with SLUICE_URL set, and
SLUICE_GRPC if its gRPC port is to be asked too, it is that one (`make test-remote`)."""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pytest
import requests

from sluice import Client

URL, GRPC = os.environ.get("SLUICE_URL", "").rstrip("/"), os.environ.get("SLUICE_GRPC", "")
UNKNOWN_SIZE = 32  # of an axis that may have any size: enough for most convolutions
DTYPES = {
    "DT_BOOL": "bool",
    "DT_UINT8": "uint8",
    "DT_INT8": "int8",
    "DT_INT16": "int16",
    "DT_INT32": "int32",
    "DT_INT64": "int64",
    "DT_HALF": "float16",
    "DT_FLOAT": "float32",
    "DT_DOUBLE": "float64",
}
OIP = {"float16": "FP16", "float32": "FP32", "float64": "FP64"}


class Stack(NamedTuple):
    """Where it answers; `grpc` is empty where it does not, or is not to be asked."""

    url: str
    grpc: str

    def get(self, path):
        return requests.get(self.url + path, timeout=30)

    def post(self, path, document):
        return requests.post(self.url + path, json=document, timeout=60)


@pytest.fixture(scope="module")
def stack(request):
    if URL:
        return Stack(URL, GRPC)
    gateway, address = request.getfixturevalue("launch_grpc_gateway")(
        request.getfixturevalue("modelserver").address, models="affine,pair,dtypes", threads=8
    )
    return Stack(gateway.url, address)


@pytest.fixture(scope="module")
def models(stack):
    """The names of the models that are AVAILABLE."""
    listed = stack.get("/readyz").json()["models"]
    names = [name for name, state in listed.items() if state == "AVAILABLE"]
    assert names, listed
    return names


@pytest.fixture(scope="module")
def questions(stack, models):
    """For each model whose default signature takes numbers: its name, made-up inputs, and the names
    of its outputs."""
    described = {name: signature(stack, name) for name in models}
    asked = [
        (name, made_up(each["inputs"]), sorted(each["outputs"]))
        for name, each in described.items()
        if all(tensor["dtype"] in DTYPES for tensor in each["inputs"].values())
    ]
    assert asked, f"no model of {models} takes numbers"
    return asked


def signature(stack, model):
    document = stack.get(f"/v1/models/{model}/metadata").json()
    return document["metadata"]["signature_def"]["signature_def"]["serving_default"]


def made_up(inputs):
    """One row of ones for each input."""
    return {
        name: np.ones([1, *sizes(tensor)[1:]], DTYPES[tensor["dtype"]])
        for name, tensor in inputs.items()
    }


def sizes(tensor):
    found = [int(dim["size"]) for dim in tensor["tensor_shape"]["dim"]]
    return [UNKNOWN_SIZE if size < 0 else size for size in found]


def ask(stack, model, inputs):
    """The outputs by name, through TensorFlow Serving's JSON."""
    reply = stack.post(
        f"/v1/models/{model}:predict",
        {"inputs": {name: array.tolist() for name, array in inputs.items()}},
    )
    assert reply.status_code == 200, reply.text
    return reply.json()["outputs"]


def test_it_lives_and_is_ready(stack):
    for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"):
        assert stack.get(path).status_code == 200, path


def test_every_model_says_its_version_and_what_it_takes(stack, models):
    for model in models:
        (newest, *_) = stack.get(f"/v1/models/{model}").json()["model_version_status"]
        assert int(newest["version"]) > 0
        assert signature(stack, model)["inputs"]
        assert stack.get(f"/v2/models/{model}/ready").status_code == 200
        assert stack.get(f"/v2/models/{model}").json()["inputs"]


def test_every_model_answers_made_up_input(stack, questions):
    for model, inputs, outputs in questions:
        answer = ask(stack, model, inputs)
        assert len(outputs) == 1 or sorted(answer) == outputs


def test_the_open_inference_protocol_answers_the_same(stack, questions):
    for model, inputs, outputs in questions:
        answer = ask(stack, model, inputs)
        reply = stack.post(
            f"/v2/models/{model}/infer",
            {
                "inputs": [
                    {
                        "name": name,
                        "shape": array.shape,
                        "data": array.ravel().tolist(),
                        "datatype": OIP.get(array.dtype.name, array.dtype.name.upper()),
                    }
                    for name, array in inputs.items()
                ]
            },
        )
        assert reply.status_code == 200, reply.text
        tensors = {each["name"]: each for each in reply.json()["outputs"]}
        assert sorted(tensors) == outputs
        for name, tensor in tensors.items():
            if tensor["datatype"] != "BYTES":
                expected = np.array(answer[name] if len(outputs) > 1 else answer).ravel()
                np.testing.assert_allclose(tensor["data"], expected, rtol=1e-3, atol=1e-6)


def test_grpc_answers_the_same(stack, questions):
    if not stack.grpc:
        pytest.skip("SLUICE_GRPC is not set")
    with Client(stack.grpc if "://" in stack.grpc else f"grpc://{stack.grpc}") as client:
        for model, inputs, outputs in questions:
            prediction = client.predict(model, inputs, signature="serving_default")
            answer = ask(stack, model, inputs)
            for name in outputs:
                if prediction[name].dtype.kind in "fiub":
                    expected = np.array(answer[name] if len(outputs) > 1 else answer)
                    np.testing.assert_allclose(prediction[name], expected, rtol=1e-3, atol=1e-6)


def test_bad_input_is_the_clients_fault_and_says_why(stack, questions):
    (model, inputs, _), *_ = questions
    name, array = next(iter(inputs.items()))
    for wrong in (
        {"no such input": 1},
        {**listed(inputs), name: "no number"},
        {**listed(inputs), name: [array.tolist()]},
        {},
    ):
        reply = stack.post(f"/v1/models/{model}:predict", {"inputs": wrong})
        assert reply.status_code == 400, reply.text
        assert reply.json()["error"]
    reply = requests.post(f"{stack.url}/v1/models/{model}:predict", data=b"{", timeout=30)
    assert reply.status_code == 400
    assert stack.post("/v1/models/no-such-model:predict", {"inputs": 1}).status_code == 404


def listed(inputs):
    return {name: array.tolist() for name, array in inputs.items()}


def test_requests_at_the_same_time_get_the_answer_of_one_alone(stack, questions):
    (model, inputs, _), *_ = questions
    alone = ask(stack, model, inputs)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(stack, model, inputs), range(32)))
    for answer in answers:
        assert numbers(answer) == pytest.approx(numbers(alone), rel=1e-3, abs=1e-6)


def numbers(answer):
    """All numbers of an answer in a row."""
    if isinstance(answer, dict):
        return [each for name in sorted(answer) for each in numbers(answer[name])]
    if isinstance(answer, list):
        return [each for part in answer for each in numbers(part)]
    return [float(answer)] if isinstance(answer, int | float) else []


def test_the_metrics_count_what_was_asked(stack, questions):
    (model, inputs, _), *_ = questions
    ask(stack, model, inputs)
    reply = stack.get("/metrics")
    if URL and reply.status_code in (403, 404):
        pytest.skip("the way in keeps /metrics inside, as it should")
    assert reply.status_code == 200
    asked = rf'sluice_requests_total{{dialect="tfs",model="{model}",signature="\w+",status="200",'
    assert re.search(rf'{asked}verb="predict",version="\d+"}} [1-9]', reply.text)
    assert "sluice_requests_in_flight" in reply.text

"""The gateway's client against a real model server that may be gone."""

import time

import grpc
import numpy as np
import pytest
import requests

from service.gateway import errors, model_server
from service.gateway.error_responses import STATUS, status_of
from service.gateway.model_server import ModelServer
from service.gateway.signature import ModelSpec

AFFINE = ModelSpec("affine")
NOT_OK = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]


@pytest.fixture
def server(modelserver):
    client = ModelServer(modelserver.address)
    yield client
    client.close()


@pytest.mark.parametrize("code", NOT_OK)
def test_every_grpc_status_has_an_error_and_every_error_a_status(code):
    kind = model_server.ERRORS[code]
    assert issubclass(kind, errors.GatewayError)
    assert 400 <= status_of(kind("")) < 600


@pytest.mark.parametrize(
    ("code", "status"),
    [
        # TensorFlow Serving's own table (tensorflow_serving/model_servers/http_rest_api_util.cc)
        ("CANCELLED", 499),
        ("INVALID_ARGUMENT", 400),
        ("DEADLINE_EXCEEDED", 504),
        ("NOT_FOUND", 404),
        ("RESOURCE_EXHAUSTED", 429),
        ("FAILED_PRECONDITION", 400),
        ("OUT_OF_RANGE", 400),
        ("UNIMPLEMENTED", 501),
        ("UNAVAILABLE", 503),
        ("INTERNAL", 500),
    ],
)
def test_statuses_are_tensorflow_servings(code, status):
    assert status_of(model_server.ERRORS[grpc.StatusCode[code]]("")) == status


def test_no_status_is_given_twice_in_one_line_of_descent():
    for kind, status in STATUS.items():
        assert not any(STATUS.get(above) == status for above in kind.__mro__[1:])


def test_predict_and_signatures(server):
    signature = server.signatures(AFFINE).get()
    assert str(signature.inputs["x"]) == "float32 [N]"
    prediction = server.predict(AFFINE, signature.name, {"x": np.float32([1, 2])})
    np.testing.assert_array_equal(prediction.outputs["y"], np.float32([3.5, 4]))
    assert prediction.version == 2


def test_signatures_are_asked_for_once(server):
    first = server.signatures(AFFINE)
    assert server.signatures(AFFINE) is first
    assert server.signatures(AFFINE, max_age_s=0) is first, "asked again, and found unchanged"


@pytest.mark.parametrize(
    ("model", "error"),
    [
        (ModelSpec("nope"), errors.ModelNotFound),
        (ModelSpec("affine", version=9), errors.ModelNotFound),
        (ModelSpec("affine", label="nope"), errors.UnknownLabel),
    ],
)
def test_a_model_that_is_not_there(server, model, error):
    with pytest.raises(error):
        server.signatures(model)


def test_the_model_refuses_values(server):
    with pytest.raises(errors.RejectedByModel, match="Shapes of all inputs must match"):
        server.predict(
            ModelSpec("pair"),
            "serving_default",
            {"image": np.zeros((1, 2, 2, 1), np.float32), "meta": np.zeros((2, 3), np.float32)},
        )


def test_names_that_clients_invent_do_not_fill_the_memory(server):
    for version in range(1100):
        server._remember(ModelSpec("affine", version), None)
    assert len(server._remembered) == 1000


def test_several_addresses_are_used_in_turn(modelserver):
    client = ModelServer(f"127.0.0.1:1, {modelserver.address}")
    for _ in range(4):
        assert client.is_available("affine", timeout_s=5)
    client.close()


def test_a_name_that_does_not_resolve_is_no_crash():
    with pytest.raises(errors.ModelServerUnavailable):
        ModelServer("no-such-host.invalid:1,127.0.0.1:1").status(AFFINE)


def test_a_model_server_that_dies_and_comes_back(
    launch_modelserver, launch_gateway, conformance_models
):
    flags = (f"--model_base_path={conformance_models}/affine", "--model_name=affine")
    before = launch_modelserver(*flags)
    gateway = launch_gateway(before.address, models="affine", request_timeout_s=10)

    def ask(path=":predict"):
        return requests.post(
            f"{gateway.url}/v1/models/affine{path}", json={"instances": [1]}, timeout=30
        )

    assert ask().status_code == 200
    before.process.kill()
    before.wait()
    began = time.monotonic()
    gone = ask()
    assert gone.status_code == 503
    assert "not available" in gone.json()["error"]
    assert time.monotonic() - began < 10
    assert requests.get(f"{gateway.url}/readyz", timeout=30).status_code == 503
    assert requests.get(f"{gateway.url}/healthz", timeout=30).status_code == 200
    launch_modelserver(*flags, f"--port={before.port}")
    deadline = time.monotonic() + 20
    while ask().status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert requests.get(f"{gateway.url}/readyz", timeout=30).status_code == 200

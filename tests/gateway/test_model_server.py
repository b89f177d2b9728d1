"""The gateway's client against a real model server that may be gone."""

import asyncio
import time
from functools import partial

import grpc
import numpy as np
import pytest
import requests

from service.gateway import errors, model_server
from service.gateway.caller import Caller
from service.gateway.error_responses import STATUS, status_of
from service.gateway.predictions import Predictions
from service.gateway.query import Query
from service.gateway.readiness import readiness
from service.gateway.settings import Settings
from service.gateway.traffic import kind_of
from sluice.wire.model_ref import ModelRef
from sluice.wire.protos.serving_pb2 import PredictRequest
from tests.gateway.rollouts import eventually

AFFINE = ModelRef("affine")
NOT_OK = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]


@pytest.fixture
def runner():
    with asyncio.Runner() as runner:
        yield runner


async def connected(predictions):
    """Until a model server takes calls."""
    async with asyncio.timeout(60):
        while not predictions.model_server.servers.well(time.monotonic()):
            await asyncio.sleep(0.01)


@pytest.fixture
def predictions(runner, modelserver):
    """Predictions of the recorded models, whose coroutines `runner` runs."""
    found = Predictions(Settings(model_server=modelserver.address))
    runner.run(found.open())
    runner.run(connected(found))
    yield found
    runner.run(found.close())


def caller(seconds=30):
    return Caller.within(seconds)


def given(signature, inputs, signatures):
    return Query(signatures.get(signature), inputs)


def infer(model, inputs, predictions, signature="serving_default"):
    """The coroutine that asks with arrays."""
    decode = partial(given, signature, inputs)
    return predictions.infer(model, decode, caller(), size=1)


@pytest.mark.parametrize("code", NOT_OK)
def test_every_grpc_status_has_an_error_and_every_error_a_status(code):
    kind = model_server.ERRORS[code]
    assert issubclass(kind, errors.GatewayError)
    assert 400 <= status_of(kind("")) < 600


@pytest.mark.parametrize(
    ("code", "status"),
    [
        # TensorFlow Serving's own table (tensorflow_serving/model_servers/http_rest_api_util.cc)
        # CANCELLED is a server that stops: to be tried again, which 499 is not
        ("CANCELLED", 503),
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


def test_predict_and_signatures(runner, predictions):
    signature = runner.run(predictions.signatures(AFFINE, caller())).get()
    assert str(signature.inputs["x"]) == "float32 [N]"
    query, answer = runner.run(infer(AFFINE, {"x": np.float32([1, 2])}, predictions))
    assert query.signature is signature
    np.testing.assert_array_equal(answer.outputs["y"], np.float32([3.5, 4]))
    assert answer.version == 2


def test_signatures_are_asked_for_once(runner, predictions):
    first = runner.run(predictions.signatures(AFFINE, caller()))
    assert runner.run(predictions.signatures(AFFINE, caller())) is first
    again = runner.run(predictions.signatures(AFFINE, caller(), max_age_s=0))
    assert again is first, "asked again, and found unchanged"


@pytest.mark.parametrize(
    ("model", "error"),
    [
        (ModelRef("nope"), errors.ModelNotFound),
        (ModelRef("affine", version=9), errors.ModelNotFound),
        (ModelRef("affine", label="nope"), errors.UnknownLabel),
    ],
)
def test_a_model_that_is_not_there(runner, predictions, model, error):
    for ask in (
        predictions.signatures(model, caller()),
        predictions.metadata(model, caller()),
        predictions.status(model, caller()),
        infer(model, {"x": np.float32([1])}, predictions),
    ):
        with pytest.raises(error):
            runner.run(ask)


def test_the_model_refuses_values(runner, predictions):
    """Past the gateway's own checks, as of a signature that was replaced: what the model server
    says of them is the client's to mend."""
    inputs = {"image": np.zeros((1, 2, 2, 1), np.float32), "meta": np.zeros((2, 3), np.float32)}
    kind = kind_of(ModelRef("pair"), "serving_default", (), inputs)
    with pytest.raises(errors.RejectedByModel, match="Shapes of all inputs must match"):
        runner.run(predictions.joining.ask(kind, inputs, None, caller()))


def test_names_that_clients_invent_do_not_fill_the_memory(runner, predictions):
    for number in range(300):
        with pytest.raises(errors.ModelNotFound):
            runner.run(predictions.signatures(ModelRef(f"invented{number}"), caller()))
    assert not predictions.knows("invented1")
    assert len(predictions._remembered) == 0


@pytest.mark.parametrize(
    ("outputs", "kept"),
    [
        (["y" * (model_server.MOST_LETTERS - 1)], 1),
        (["y" * model_server.MOST_LETTERS], 0),
        ([""] * (model_server.MOST_LETTERS + 1), 0),
    ],
    ids=["long", "too long", "too many"],
)
def test_outputs_that_clients_invent_do_not_fill_the_memory(outputs, kept):
    model_server._cached_head.cache_clear()
    inputs = {"x": np.float32([1])}
    request = model_server.encode_predict_request(AFFINE, "s", [inputs], outputs)
    assert model_server._cached_head.cache_info().currsize == kept
    assert PredictRequest.FromString(request).output_filter == outputs


def test_several_addresses_are_used_one_of_which_is_dead(runner, modelserver):
    predictions = Predictions(Settings(model_server=f"127.0.0.1:1, {modelserver.address}"))
    runner.run(predictions.open())
    for _ in range(4):
        assert runner.run(predictions.available_versions("affine", caller())) == [2, 1]
    runner.run(predictions.close())


def test_a_name_that_does_not_resolve_is_no_crash(runner):
    predictions = Predictions(Settings(model_server="no-such-host.invalid:1"))
    runner.run(predictions.open())
    with pytest.raises(errors.ModelServerUnavailable, match="cannot be looked up"):
        runner.run(predictions.status(AFFINE, caller()))
    assert not runner.run(readiness(predictions)).ready
    runner.run(predictions.close())


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
    eventually(lambda: ask().status_code == 200)
    eventually(lambda: requests.get(f"{gateway.url}/readyz", timeout=30).status_code == 200)

"""One model's overload leaves another alone."""

import contextlib
import socket
from collections.abc import Callable, Iterator

import grpc
import pytest
import requests

from sluice.wire.protos.serving_pb2 import PredictRequest, PredictResponse
from sluice.wire.protos.serving_pb2_grpc import PredictionServiceStub
from sluice.wire.tensors import decode_tensor
from tests.processes import free_port
from tests.system.load import Question
from tests.system.test_hanging_up import in_flight, wait_until

PLACES = 6  # of one model
ENOUGH_S = 20  # for an answer that waits for nobody


@pytest.fixture
def fronts(launch_toy, launch_front):
    """(the gateway, a stub of its gRPC port) before a model server of which one model hangs."""
    port = free_port()
    gateway = launch_front(
        launch_toy("--hangs=stuck").address, workers=1, model_places=PLACES, grpc_port=port
    )
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield gateway, PredictionServiceStub(channel)


def test_a_model_that_hangs_takes_its_own_places_alone(fronts):
    gateway, stub = fronts

    def over_http(model: str) -> tuple[int, object]:
        reply = requests.post(
            f"{gateway.url}/v1/models/{model}:predict", json={"instances": [1.5]}, timeout=ENOUGH_S
        )
        return reply.status_code, reply.json()

    with _callers(gateway.http_port, PLACES // 2), _calls(stub, PLACES - PLACES // 2):
        wait_until(lambda: in_flight(gateway) == PLACES)
        for _ in range(10):
            assert over_http("toy") == (200, {"predictions": [3.0]})
            reply = stub.Predict(_request("toy"), timeout=ENOUGH_S)
            assert decode_tensor(reply.outputs["y"]).tolist() == [3.0]
        status, document = over_http("stuck")
        assert status == 503
        assert "stuck" in document["error"]
        refused = stub.Predict.future(_request("stuck"), timeout=ENOUGH_S)
        assert refused.code() is grpc.StatusCode.UNAVAILABLE
        assert "stuck" in refused.details()
    wait_until(lambda: in_flight(gateway) == 0)


@contextlib.contextmanager
def _callers(port: int, count: int) -> Iterator[None]:
    """So many who wait for the model that hangs, over HTTP."""
    message = Question(port, "/v1/models/stuck:predict", b'{"instances":[1.5]}').message
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            caller = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            caller.sendall(message)
        yield


@contextlib.contextmanager
def _calls(stub: PredictionServiceStub, count: int) -> Iterator[None]:
    """The same over gRPC."""
    predict: Callable[..., grpc.Future[PredictResponse]] = stub.Predict.future
    calls = [predict(_request("stuck"), timeout=60) for _ in range(count)]
    try:
        yield
    finally:
        for call in calls:
            call.cancel()


def _request(model: str) -> PredictRequest:
    request = PredictRequest()
    request.model_spec.name = model
    request.inputs["x"].dtype = 1
    request.inputs["x"].tensor_shape.dim.add(size=1)
    request.inputs["x"].float_val.append(1.5)
    return request

"""What a gRPC call carries through the gateway, and what becomes of it when the gateway stops."""

import gzip
import signal
import threading
import time

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from service.gateway.access.keys import digest_of, new_key
from sluice.wire.protos import reflection_pb2, serving_pb2_grpc
from sluice.wire.protos.reflection_pb2_grpc import ServerReflectionStub
from sluice.wire.protos.serving_pb2 import ModelSpec, PredictRequest
from sluice.wire.tensors import encode_tensor

PREDICT = "/tensorflow.serving.PredictionService/Predict"
SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
DRAIN_S = 120  # far longer than anything here waits: what lasts until it is over has failed by then
# Not OK, nor late: the slow model server lets go of a call by itself after 30 s, in which the
# gateway gives it up too.
CUT_OFF = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


@pytest.fixture
def gateway(launch_grpc_gateway, slow):
    """(GatewayProcess, a channel to its gRPC port), before the slow model server."""
    gateway, address = launch_grpc_gateway(slow[1], drain_timeout_s=DRAIN_S)
    with grpc.insecure_channel(address) as channel:
        yield gateway, channel


def predict(channel, timeout=30, metadata=()):
    request = PredictRequest(model_spec=ModelSpec(name="slow"))
    request.inputs["x"].CopyFrom(encode_tensor(np.ones(1, "f4")))
    return serving_pb2_grpc.PredictionServiceStub(channel).Predict.future(
        request, timeout=timeout, metadata=metadata
    )


def test_the_clients_deadline_and_request_id_reach_the_model_server(gateway, slow):
    slow[0].go.set()
    predict(gateway[1], timeout=5, metadata=[("x-request-id", "abc"), ("cookie", "x")]).result()
    metadata, left_s = slow[0].contexts[0]
    assert metadata["x-request-id"] == "abc"
    assert "cookie" not in metadata
    assert 0 < left_s < 5


def test_the_gateways_own_limit_holds_where_the_client_sets_none(gateway, slow):
    slow[0].go.set()
    predict(gateway[1], timeout=None).result()
    assert 25 < slow[0].contexts[0][1] < 31


def test_signatures_are_asked_for_again_once_another_version_answers(gateway, slow):
    slow[0].go.set()
    for version, asked in ((0, 1), (0, 1), (7, 1), (7, 2)):
        slow[0].version = version
        predict(gateway[1]).result()
        assert slow[0].metadata_calls == asked
    slow[0].version = 8
    for _ in range(2):
        for call in [predict(gateway[1]) for _ in range(16)]:
            call.result()
    assert slow[0].metadata_calls == 3, "once for all who need them"


def test_a_message_that_does_not_come(launch_grpc_gateway, slow):
    _, address = launch_grpc_gateway(slow[1], request_timeout_s=5)
    with grpc.insecure_channel(address) as channel:
        none = channel.stream_unary(PREDICT).future(iter(()), timeout=30)
        assert none.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert none.details() == "The call ended without a message"
        late = channel.stream_unary(PREDICT).future(endless(), timeout=30)
        assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert late.details() == "The message did not come within 5 s"
        slow[0].go.set()
        predict(channel).result()


@pytest.mark.parametrize("is_packed", [False, True], ids=["plain", "packed"])
def test_who_finds_no_place_is_told_before_its_message_is_read(
    launch_grpc_gateway, slow, is_packed
):
    """One that cannot be read, packed or not, and names its model first; one that names it last."""
    _, address = launch_grpc_gateway(slow[1], model_places=1)
    begins = PredictRequest(model_spec=ModelSpec(name="slow")).SerializeToString()
    inputs = PredictRequest(inputs={"x": encode_tensor(np.ones(1, "f4"))}).SerializeToString()
    unreadable = begins + b"\x12\x05..."
    if is_packed:
        unreadable = gzip.compress(unreadable + bytes(1 << 16))[:-1]
    with grpc.insecure_channel(address) as channel:
        ask, held = channel.unary_unary(PREDICT), predict(channel)
        assert slow[0].arrived.wait(30)
        for message in (unreadable, inputs + begins):
            call = ask.future(message, timeout=30)
            assert call.code() is grpc.StatusCode.UNAVAILABLE
            assert 'All 1 places of the model "slow" are taken' in call.details()
        slow[0].go.set()
        held.result()
        assert ask.future(unreadable, timeout=30).code() is grpc.StatusCode.INVALID_ARGUMENT
        assert ask(inputs + begins, timeout=30)


@pytest.mark.parametrize("end", ["cancel", "deadline"])
def test_a_client_that_gives_up_ends_the_call_at_the_model_server(gateway, slow, end):
    call = predict(gateway[1], timeout=5 if end == "deadline" else 60)
    assert slow[0].arrived.wait(30)
    if end == "cancel":
        call.cancel()
    assert slow[0].cancelled.wait(30)
    slow[0].go.set()
    predict(gateway[1]).result()


def test_sigterm_ends_what_is_merely_open_and_finishes_what_is_in_flight(gateway, slow):
    process, channel = gateway
    waiting = channel.stream_unary(PREDICT).future(endless(), timeout=DRAIN_S)
    watch = health_pb2_grpc.HealthStub(channel).Watch(HealthCheckRequest(), timeout=DRAIN_S)
    assert next(watch).status == NOT_SERVING, "this model server has no ModelService"
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    reflection = ServerReflectionStub(channel).ServerReflectionInfo(endless(asked), timeout=DRAIN_S)
    next(reflection)
    call = predict(channel, timeout=60)
    assert slow[0].arrived.wait(10)
    process.process.send_signal(signal.SIGTERM)
    late = refused(channel)
    assert late.code() == grpc.StatusCode.UNAVAILABLE
    assert not call.done()
    slow[0].go.set()
    assert call.code() == grpc.StatusCode.OK
    assert process.wait(DRAIN_S / 2) == 0, "an open stream held the drain up"
    assert waiting.code() in CUT_OFF


def test_a_drain_refuses_before_it_asks_for_a_key(launch_grpc_gateway, slow, tmp_path):
    key, path = new_key("a"), tmp_path / "access.toml"
    path.write_text(f'[keys.a]\nsha256 = "{digest_of(key)}"\nmodels = ["*"]\n')
    process, address = launch_grpc_gateway(slow[1], drain_timeout_s=20, access_file=path)
    with grpc.insecure_channel(address) as channel:
        call = predict(channel, metadata=[("x-api-key", key)])
        assert slow[0].arrived.wait(10)
        assert predict(channel).code() is grpc.StatusCode.UNAUTHENTICATED
        process.process.send_signal(signal.SIGTERM)
        late = predict(channel)
        while late.code() is grpc.StatusCode.UNAUTHENTICATED:
            late = predict(channel)
        assert late.code() is grpc.StatusCode.UNAVAILABLE
        assert late.details() == "The gateway is shutting down; call another one"
        slow[0].go.set()
        assert call.code() is grpc.StatusCode.OK
    assert process.wait() == 0


def endless(*messages):
    yield from messages
    time.sleep(DRAIN_S)


def refused(channel):
    """The first call that is not taken any more; those before it are cancelled."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        call = predict(channel)
        time.sleep(0.3)
        if call.done():
            return call
        call.cancel()
    raise AssertionError("calls are still taken")


def test_the_drain_is_bounded(launch_grpc_gateway, slow):
    process, address = launch_grpc_gateway(slow[1], drain_timeout_s=5)
    with grpc.insecure_channel(address) as channel:
        call = predict(channel, timeout=60)
        assert slow[0].arrived.wait(30)
        began = time.monotonic()
        assert process.terminate() == 0
        assert time.monotonic() - began > 4
        assert call.code() in CUT_OFF


def test_ctrl_c_cuts_off_what_is_in_flight(gateway, slow):
    process, channel = gateway
    call = predict(channel, timeout=60)
    assert slow[0].arrived.wait(30)
    process.process.send_signal(signal.SIGINT)
    process.wait()
    assert call.code() in CUT_OFF


def test_sigterm_under_load_refuses_late_calls_and_cuts_off_none(gateway, slow):
    slow[0].go.set()
    process, channel = gateway
    codes, stop = [], threading.Event()

    def call():
        while not stop.is_set():
            codes.append(predict(channel).code())
            if codes[-1] != grpc.StatusCode.OK:
                return

    callers = [threading.Thread(target=call) for _ in range(8)]
    for caller in callers:
        caller.start()
    deadline = time.monotonic() + 60
    while codes.count(grpc.StatusCode.OK) < 50:
        assert time.monotonic() < deadline, codes
        time.sleep(0.01)
    assert process.terminate() == 0
    stop.set()
    for caller in callers:
        caller.join()
    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}

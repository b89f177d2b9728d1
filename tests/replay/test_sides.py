"""Whose fault it is that a side answers nothing: its version's, or whoever's is asked there."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import grpc
import numpy as np
import pytest

from service.gateway.errors import PayloadTooLarge
from service.replay.sides import Away, Lost, Place, Side
from sluice.wire.model_ref import ModelRef
from sluice.wire.prediction_logs import PREDICT_LOG, Logged
from sluice.wire.protos.serving_pb2 import PredictRequest
from sluice.wire.protos.serving_pb2_grpc import (
    PredictionServiceServicer,
    add_PredictionServiceServicer_to_server,
)
from sluice.wire.tensors import encode_tensor


class Refusing(PredictionServiceServicer):
    """Answers each request so."""

    def __init__(self, code: grpc.StatusCode, why: str) -> None:
        self._code, self._why = code, why

    def Predict(self, _request, context):  # noqa: N802
        context.abort(self._code, self._why)


@contextmanager
def refused_by(code: grpc.StatusCode, why: str = "not for you") -> Iterator[Side]:
    """A side whose server answers so."""
    server = grpc.server(ThreadPoolExecutor(1))
    add_PredictionServiceServicer_to_server(Refusing(code, why), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with closing(Side(Place(f"127.0.0.1:{port}", 2), None, 60)) as side:
            yield side
    finally:
        server.stop(None).wait()


def logged() -> Logged:
    request = PredictRequest(model_spec=ModelRef("digits").to_proto("serving_default"))
    request.inputs["x"].CopyFrom(encode_tensor(np.float32([1])))
    return Logged(PREDICT_LOG, request, ModelRef("digits", 1), "serving_default", 1, 0)


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    ],
)
def test_who_may_not_ask_or_not_so_often_learns_nothing_of_the_version(code) -> None:
    with refused_by(code) as side, pytest.raises(Away, match="cannot be asked: not for you"):
        side.ask(logged())


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    ],
)
def test_what_else_a_version_answers_is_its_own(code) -> None:
    with refused_by(code) as side:
        reply = side.ask(logged())
    assert (reply.error, reply.reason, reply.outputs) == (code.name, "not for you", {})


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (grpc.StatusCode.UNAVAILABLE, "Socket closed"),
        (grpc.StatusCode.UNAVAILABLE, "The model server at a:1 is not available: recvmsg:..."),
        (grpc.StatusCode.CANCELLED, "the server stops"),
    ],
)
def test_a_server_that_is_lost_under_a_call_may_have_died_of_it(code, why: str) -> None:
    with (
        refused_by(code, why) as side,
        pytest.raises(Lost, match=f"cannot be asked: {why}") as lost,
    ):
        side.ask(logged())
    assert (lost.value.side, lost.value.reply.error) == (side, code.name)


def test_one_that_never_was_there_has_not() -> None:
    words = "failed to connect to all addresses; last error: Connection reset by peer"
    with refused_by(grpc.StatusCode.UNAVAILABLE, words) as side, pytest.raises(Away) as away:
        side.ask(logged())
    assert not isinstance(away.value, Lost)


@pytest.mark.parametrize(
    "why",
    [
        "OOM when allocating tensor with shape[64,4096] and type float",
        "Out of memory while trying to allocate 17179869184 bytes.",
        "Failed to allocate memory for the output",
        "SERVER: Received message larger than max (9 vs. 8)",
        "Sent message larger than max (9 vs. 8)",
        str(PayloadTooLarge(8)),
    ],
)
def test_what_is_too_large_for_a_version_is_refused_whoever_asks(why: str) -> None:
    with refused_by(grpc.StatusCode.RESOURCE_EXHAUSTED, why) as side:
        reply = side.ask(logged())
    assert (reply.error, reply.reason) == ("RESOURCE_EXHAUSTED", why)

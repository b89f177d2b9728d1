"""What a caller is told of a call that failed."""

import asyncio

import grpc
import pytest

from service.modelserver.calls import Calls, add_service
from service.modelserver.errors import InvalidArgument
from sluice.wire.contract import MODEL_SERVICE
from sluice.wire.protos.serving_pb2 import GetModelStatusRequest, ModelSpec


class Quoting:
    """Refuses a request in its own words, as TensorFlow does a string that is no number."""

    async def GetModelStatus(self, request, _):  # noqa: N802
        raise InvalidArgument(f"no number: {request.model_spec.name}")

    HandleReloadConfigRequest = GetModelStatus


def refusal(name):
    """(code, details) of a call about a model of this name."""

    async def call():
        server = grpc.aio.server()
        add_service(server, MODEL_SERVICE, Quoting(), Calls())
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        request = GetModelStatusRequest(model_spec=ModelSpec(name=name)).SerializeToString()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            method = channel.unary_unary(f"/{MODEL_SERVICE}/GetModelStatus")
            with pytest.raises(grpc.RpcError) as caught:
                await method(request, timeout=60)
        await server.stop(None)
        return caught.value.code(), caught.value.details()

    return asyncio.run(call())


@pytest.mark.parametrize("letter", ["x", "\N{EURO SIGN}"])
def test_a_refusal_that_quotes_the_request_is_told_as_far_as_a_client_takes_it(letter):
    code, details = refusal(letter * 100_000)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert details.startswith(f"no number: {letter}")
    assert details.endswith(f"{letter}...TRUNCATED")


def test_a_short_one_is_told_as_it_is():
    assert refusal("abc") == (grpc.StatusCode.INVALID_ARGUMENT, "no number: abc")

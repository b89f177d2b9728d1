"""What a gRPC client learns of a bug of the gateway's."""

import asyncio

import grpc
import pytest

from service.gateway.error_responses import FAILED
from service.gateway.gateway import Gateway
from service.gateway.rpc.arrivals import Arrivals
from service.gateway.rpc.edge import Edge, Method
from service.gateway.settings import Settings


def test_what_a_bug_says_is_for_the_log(caplog):
    async def test():
        gateway = Gateway.of(Settings())
        edge = Edge(gateway, Arrivals(gateway.settings, gateway.telemetry))

        def parse(_):
            raise RuntimeError("/etc/a-path")

        server = grpc.aio.server()
        methods = {"M": Method("oip-grpc", "live", parse, parse)}
        server.add_generic_rpc_handlers((edge.handlers("s", methods),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            with pytest.raises(grpc.RpcError) as caught:
                await channel.unary_unary("/s/M")(b"", timeout=60)
        await server.stop(None)
        return caught.value

    error = asyncio.run(test())
    assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, FAILED)
    assert "/etc/a-path" in caplog.text

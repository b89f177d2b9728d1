"""Messages over gRPC that take far more memory than they have bytes, from strangers too."""

import asyncio
import gzip

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest

from service.gateway.error_responses import FAILED
from service.gateway.gateway import Gateway
from service.gateway.rpc.arrivals import Arrivals
from service.gateway.rpc.edge import Edge, Method
from service.gateway.settings import Settings
from sluice.wire.contract import HEALTH_SERVICE, OIP_SERVICE
from sluice.wire.protos import inference_pb2 as inference
from sluice.wire.protos.reflection_pb2 import ServerReflectionRequest
from sluice.wire.reflection import NAMES as REFLECTION
from tests.gateway.hostile import Connection, Workers
from tests.gateway.test_hostile_grpc import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    SETTINGS,
    frame,
    head,
    message,
)

MESSAGE_BYTES = 60_000_000
CONNECTIONS, STREAMS = 8, 10  # on each; 4.8 GB in all
MOST_MB = 700  # some 250 are let in; the rest is what comes before it is seen
FRAME_HEAD = 9  # bytes: its length, kind, flags and stream
FRAME_BYTES = 1 << 14  # that one may have behind it
INFER = f"/{OIP_SERVICE}/ModelInfer"
HEALTH = f"/{HEALTH_SERVICE}/Check"
OPEN = [HEALTH, f"/{HEALTH_SERVICE}/Watch", f"/{REFLECTION[0]}/ServerReflectionInfo"]


@pytest.fixture
def gateway(launch_grpc_gateway, slow):
    """(GatewayProcess, gRPC address), which holds as many bytes of bodies as one message has."""
    slow[0].go.set()
    gateway, address = launch_grpc_gateway(
        slow[1], max_body_bytes=MESSAGE_BYTES, max_bytes_in_flight=MESSAGE_BYTES, access_log="off"
    )
    return gateway, address


def bombs(path):
    """A connection's."""
    packed = message(gzip.compress(bytes(MESSAGE_BYTES - 1), 9), compressed=1)
    encoding = (b"grpc-encoding", b"gzip")
    frames = [frame(SETTINGS, 0, 0)]
    for stream in range(1, 2 * STREAMS, 2):
        frames.append(frame(HEADERS, END_HEADERS, stream, head(path, encoding)))
        for start in range(0, len(packed), FRAME_BYTES):
            piece = packed[start : start + FRAME_BYTES]
            frames.append(frame(DATA, 0, stream, piece))
        frames.append(frame(DATA, END_STREAM, stream))
    return PREFACE + b"".join(frames)


def ended(data):
    """How many streams are, by the frames that have come."""
    count = 0
    while len(data) >= FRAME_HEAD:
        count += data[3] == HEADERS and bool(data[4] & END_STREAM)
        data = data[FRAME_HEAD + int.from_bytes(data[:3], "big") :]
    return count


async def answered(method, request):
    """Once there is room again."""
    while True:
        try:
            return await method(request, timeout=60, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("path", [INFER, HEALTH])
def test_what_unpacks_to_more_than_there_is_room_for_is_sent_away(gateway, path):
    process, address = gateway
    workers, port = Workers(process), int(address.rpartition(":")[2])
    request = inference.ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype="FP32", shape=[1]).contents.fp32_contents.append(1)

    async def attack():
        loop, sent = asyncio.get_running_loop(), bombs(path)
        attackers = [
            (await loop.create_connection(Connection, "127.0.0.1", port))[1]
            for _ in range(CONNECTIONS)
        ]
        for attacker in attackers:
            attacker.write(sent)
        async with grpc.aio.insecure_channel(address) as channel:
            ask = channel.unary_unary(INFER, inference.ModelInferRequest.SerializeToString)
            check = channel.unary_unary(HEALTH, HealthCheckRequest.SerializeToString)
            async with asyncio.timeout(60):
                while any(ended(each.data) < STREAMS for each in attackers):
                    assert all(each.is_open for each in attackers)
                    await asyncio.sleep(0.05)
            for attacker in attackers:
                attacker.abort()
            async with asyncio.timeout(60):
                await answered(ask, request)
                await answered(check, HealthCheckRequest())

    asyncio.run(attack())
    workers.check(of="service")
    assert workers.peak_mb() < MOST_MB


def test_open_services_answer_as_before(gateway):
    with grpc.insecure_channel(gateway[1]) as channel:
        for path, request in [
            (HEALTH, HealthCheckRequest()),
            (OPEN[1], HealthCheckRequest()),
            (OPEN[2], ServerReflectionRequest(list_services="")),
        ]:
            method = channel.stream_stream(path)
            call = method(iter([request.SerializeToString()]), timeout=60)
            assert next(call)
            call.cancel()
            silent = method(iter([]), timeout=60)
            if path == OPEN[2]:
                assert list(silent) == []
                assert silent.code() is grpc.StatusCode.OK
            else:
                with pytest.raises(grpc.RpcError, match="The call ended without a message"):
                    next(silent)
                assert silent.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_what_a_bug_says_is_for_the_log(caplog):
    async def test():
        gateway = Gateway.of(Settings())
        edge = Edge(gateway, Arrivals(gateway.settings, gateway.telemetry.refused))

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

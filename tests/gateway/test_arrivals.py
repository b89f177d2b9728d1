"""Messages over gRPC that take far more memory than a worker has for them, from strangers too."""

import asyncio
import gzip
import zlib

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest

from service.gateway.caller import Caller
from service.gateway.decode.content_encoding import FREE_BYTES
from service.gateway.errors import Busy, MalformedRequest, PayloadTooLarge
from service.gateway.rpc import arrivals
from service.gateway.rpc.arrivals import Arrivals
from service.gateway.rpc.packing import SMALL_BYTES, is_packed, unpack
from service.gateway.settings import Settings
from sluice.wire.contract import HEALTH_SERVICE, MODEL_SERVICE, OIP_SERVICE
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
CONNECTIONS, STREAMS = 8, 10  # on each, of packed messages; 4.8 GB in all
PLAIN_MESSAGES = 20  # 1.2 GB
# A worker begins with some 75, and has 180 for messages; the rest is what comes before it is seen.
MOST_MB = 700
FRAME_HEAD = 9  # bytes: its length, kind, flags and stream
FRAME_BYTES = 1 << 14  # that one may have behind it
# Behind a message that is read, of which 64 kB come; and round trips after it.
UNREAD_BYTES, UNREAD_MB, ROUNDS = 3_000_000, 64, 20
INFER = f"/{OIP_SERVICE}/ModelInfer"
LIVE, READY = f"/{OIP_SERVICE}/ServerLive", f"/{OIP_SERVICE}/ModelReady"
STATUS = f"/{MODEL_SERVICE}/GetModelStatus"
HEALTH = f"/{HEALTH_SERVICE}/Check"
WATCH = f"/{HEALTH_SERVICE}/Watch"
ASK_NAMES = f"/{REFLECTION[0]}/ServerReflectionInfo"
GZIP = (b"grpc-encoding", b"gzip")


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
    frames = [frame(SETTINGS, 0, 0)]
    for stream in range(1, 2 * STREAMS, 2):
        frames.append(frame(HEADERS, END_HEADERS, stream, head(path, GZIP)))
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


def one_row():
    infer = inference.ModelInferRequest(model_name="m")
    infer.inputs.add(name="x", datatype="FP32", shape=[1]).contents.fp32_contents.append(1)
    return infer.SerializeToString()


async def answered(channel):
    """A prediction and a look at health are, once there is room again."""
    async with asyncio.timeout(60):
        for path, request in [(INFER, one_row()), (HEALTH, b"")]:
            ask = channel.unary_unary(path)
            while True:
                try:
                    await ask(request, timeout=60, wait_for_ready=True)
                    break
                except grpc.aio.AioRpcError as error:
                    assert error.code() is grpc.StatusCode.UNAVAILABLE, error
                    await asyncio.sleep(0.1)


@pytest.mark.parametrize("path", [INFER, HEALTH])
def test_what_unpacks_to_far_more_is_refused(gateway, path):
    process, address = gateway
    workers, port = Workers(process), int(address.rpartition(":")[2])

    async def attack():
        loop, sent = asyncio.get_running_loop(), bombs(path)
        attackers = [
            (await loop.create_connection(Connection, "127.0.0.1", port))[1]
            for _ in range(CONNECTIONS)
        ]
        for attacker in attackers:
            attacker.write(sent)
        async with asyncio.timeout(60):
            while any(ended(each.data) < STREAMS for each in attackers):
                assert all(each.is_open for each in attackers)
                await asyncio.sleep(0.05)
        for attacker in attackers:
            attacker.abort()
        async with grpc.aio.insecure_channel(address) as channel:
            await answered(channel)

    asyncio.run(attack())
    workers.check(of="service")
    assert workers.peak_mb() < MOST_MB


@pytest.mark.parametrize("path", [INFER, HEALTH])
def test_what_is_more_than_there_is_room_for_is_sent_away(gateway, path):
    process, address = gateway
    workers = Workers(process)

    async def attack():
        large = bytes(MESSAGE_BYTES - 1)
        async with grpc.aio.insecure_channel(
            address, [("grpc.max_send_message_length", -1)]
        ) as channel:
            ask = channel.unary_unary(path)
            calls = [ask(large, timeout=120) for _ in range(PLAIN_MESSAGES)]
            codes = {await call.code() for call in calls}
            read = {INFER: grpc.StatusCode.INVALID_ARGUMENT}
            assert codes <= {
                grpc.StatusCode.UNAVAILABLE,
                read.get(path, grpc.StatusCode.RESOURCE_EXHAUSTED),
            }
            await answered(channel)

    asyncio.run(attack())
    workers.check(of="service")
    assert workers.peak_mb() < MOST_MB


def test_who_keeps_a_call_open_is_sent_away_too(gateway):
    """It may be the one whose messages fill the memory."""

    async def attack():
        async with grpc.aio.insecure_channel(
            gateway[1], [("grpc.max_send_message_length", -1)]
        ) as channel:
            watch = channel.stream_stream(WATCH)()
            await watch.write(b"")
            assert await watch.read()
            asked = channel.stream_stream(ASK_NAMES)()
            await asked.write(ServerReflectionRequest(list_services="").SerializeToString())
            assert await asked.read()
            ask = channel.unary_unary(INFER)
            calls = [ask(bytes(MESSAGE_BYTES - 1), timeout=120) for _ in range(PLAIN_MESSAGES)]
            for call in calls:
                await call.code()
            async with asyncio.timeout(60):
                for open_call in (watch, asked):
                    assert await open_call.code() is grpc.StatusCode.UNAVAILABLE
            await answered(channel)

    asyncio.run(attack())


@pytest.mark.parametrize("path", [INFER, WATCH])
def test_messages_that_nobody_reads_are_not_taken(gateway, slow, path):
    """They come behind the one that the method takes, whose call goes on."""
    process, address = gateway
    slow[0].go.clear()
    workers, first = Workers(process), one_row() if path == INFER else b""
    began_mb = workers.peak_mb()

    async def attack():
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.aio.insecure_channel(address, options) for _ in range(CONNECTIONS)]
        calls = [each.stream_stream(path)() for each in channels for _ in range(STREAMS)]
        for call in calls:
            await call.write(first)
        second = bytes(UNREAD_BYTES)
        writes = [asyncio.ensure_future(call.write(second)) for call in calls]
        for _ in range(ROUNDS):
            for channel in channels:
                await channel.unary_unary(HEALTH)(b"", timeout=60)
        for call in calls:
            call.cancel()
        await asyncio.gather(*writes, return_exceptions=True)
        await asyncio.gather(*(each.close() for each in channels))

    asyncio.run(attack())
    assert workers.peak_mb() - began_mb < UNREAD_MB


@pytest.mark.parametrize("path", [HEALTH, WATCH, ASK_NAMES, LIVE, READY, STATUS])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_what_asks_for_no_prediction_is_small(gateway, path, pack):
    """Each of its fields, which says nothing, is read in the event loop."""
    with grpc.insecure_channel(gateway[1]) as channel:
        large = b"\x98\x06\x01" * SMALL_BYTES
        call = channel.stream_stream(path)(iter([pack(large)]), timeout=60)
        with pytest.raises(grpc.RpcError, match="65536 bytes for what asks for no prediction"):
            next(call)
        assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_open_services_answer_as_before(gateway):
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
        with grpc.insecure_channel(gateway[1], compression=compression) as channel:
            for path, request in [
                (HEALTH, HealthCheckRequest(service=OIP_SERVICE)),
                (WATCH, HealthCheckRequest(service=OIP_SERVICE)),
                (ASK_NAMES, ServerReflectionRequest(list_services="", host="h" * 1000)),
            ]:
                call = channel.stream_stream(path)(iter([request.SerializeToString()]), timeout=60)
                assert next(call)
                call.cancel()


@pytest.mark.parametrize("path", [HEALTH, WATCH, ASK_NAMES])
def test_open_services_that_are_asked_nothing_say_so(gateway, path):
    with grpc.insecure_channel(gateway[1]) as channel:
        silent = channel.stream_stream(path)(iter([]), timeout=60)
        if path == ASK_NAMES:
            assert list(silent) == []
            assert silent.code() is grpc.StatusCode.OK
        else:
            with pytest.raises(grpc.RpcError, match="The call ended without a message"):
                next(silent)
            assert silent.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_what_is_packed_is_told_from_what_is_not(pack):
    raw = inference.ModelInferRequest(model_name="m" * 1000).SerializeToString()
    packed = pack(raw)
    assert is_packed(packed)
    assert not is_packed(raw)
    assert unpack(packed, len(raw)) == raw
    with pytest.raises(PayloadTooLarge):
        unpack(packed, len(raw) - 1)
    with pytest.raises(MalformedRequest, match="more than 200 times what was sent"):
        unpack(pack(bytes(2 * FREE_BYTES)), MESSAGE_BYTES)


class Process:
    """One whose memory a test sets."""

    resident_bytes = 100 << 20
    gave_back = 0

    def give_back(self):
        self.gave_back += 1


@pytest.fixture
def process():
    return Process()


@pytest.fixture
def clock(monkeypatch):
    """Seconds, which pass where a test says so."""

    class Clock:
        seconds = 1000.0

        def monotonic(self):
            return self.seconds

    clock = Clock()
    monkeypatch.setattr(arrivals, "time", clock)
    return clock


@pytest.fixture
def ask(process, clock):
    """A message, a second after the last one, of 192 MB for which there is room."""
    settings = Settings(max_bytes_in_flight=64 << 20, max_body_bytes=64 << 20)
    coming = Arrivals(settings, lambda: process.resident_bytes, process.give_back)

    async def message():
        async def read():
            return b"message"

        clock.seconds += 1
        return await coming.message(read, Caller.within(60))

    return lambda: asyncio.run(message())


def test_a_worker_that_has_grown_takes_messages_again(process, clock, ask):
    assert ask() == b"message"
    assert not process.gave_back
    process.resident_bytes = 293 << 20
    for _ in range(2):
        with pytest.raises(Busy, match="SLUICE_MAX_BYTES_IN_FLIGHT"):
            ask()
    assert process.gave_back == 2
    clock.seconds += arrivals.QUIET_S
    assert ask() == b"message"
    process.resident_bytes += 191 << 20
    assert ask() == b"message"
    process.resident_bytes += 2 << 20
    with pytest.raises(Busy):
        ask()


def test_what_a_worker_had_grown_by_is_no_room(process, clock, ask):
    assert ask() == b"message"
    process.resident_bytes = 293 << 20
    with pytest.raises(Busy):
        ask()
    clock.seconds += arrivals.QUIET_S
    assert ask() == b"message"
    process.resident_bytes = 90 << 20
    assert ask() == b"message"
    process.resident_bytes = 293 << 20
    with pytest.raises(Busy):
        ask()

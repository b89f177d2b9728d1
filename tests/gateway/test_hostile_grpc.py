"""Mutated messages and HTTP/2 frames at the gateway's gRPC port: a proper code for each message,
no worker lost, and others are served meanwhile."""

import asyncio
import contextlib
import json
import random
import struct
from collections import Counter

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest

from sluice.wire.contract import HEALTH_SERVICE, OIP_SERVICE
from sluice.wire.protos import inference_pb2 as inference
from sluice.wire.protos.reflection_pb2 import ServerReflectionRequest
from sluice.wire.reflection import NAMES as REFLECTION
from tests.gateway.hostile import Connection, Workers, wait_until_ready
from tests.mutations import mutate, mutate_bytes, recorded

IN_FLIGHT = 16
RESET_OR_END = b"grpc-status"
TRY_AGAIN = [
    (
        "grpc.service_config",
        json.dumps(
            {
                "methodConfig": [
                    {
                        "name": [{}],
                        "retryPolicy": {
                            "maxAttempts": 5,
                            "initialBackoff": "0.1s",
                            "maxBackoff": "1s",
                            "backoffMultiplier": 2,
                            "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
                        },
                    }
                ]
            }
        ),
    )
]
ANSWERED_S, GIVEN_UP_S = 0.2, 0.02  # that a connection of mutated frames is listened to, at most

PROPER = {
    *("OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "UNIMPLEMENTED"),
    "DEADLINE_EXCEEDED",  # where a timeout of the message's own was changed
}
INFER = f"/{OIP_SERVICE}/ModelInfer"
PREDICT = "/tensorflow.serving.PredictionService/Predict"


def infer(**how):
    request = inference.ModelInferRequest(model_name="affine", id="7", **how)
    request.parameters["signature_name"].string_param = "serving_default"
    request.parameters["timeout"].int64_param = 20_000_000
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[2])
    if not request.raw_input_contents:
        tensor.contents.fp32_contents.extend([1, 2.5])
    request.outputs.add(name="y")
    return request


SEEDS = [
    *recorded(),
    *(
        (path, request.SerializeToString(), type(request))
        for path, request in [
            (INFER, infer()),
            (INFER, infer(model_version="stable")),
            (INFER, infer(raw_input_contents=[struct.pack("<ff", 1, 2.5)])),
            (f"/{OIP_SERVICE}/ModelReady", inference.ModelReadyRequest(name="affine", version="1")),
            (f"/{OIP_SERVICE}/ModelMetadata", inference.ModelMetadataRequest(name="pair")),
            (f"/{OIP_SERVICE}/ServerReady", inference.ServerReadyRequest()),
            (f"/{OIP_SERVICE}/RepositoryIndex", inference.RepositoryIndexRequest(ready=True)),
            (
                f"/{OIP_SERVICE}/ModelStatistics",
                inference.ModelStatisticsRequest(name="affine", version="2"),
            ),
            (f"/{HEALTH_SERVICE}/Check", HealthCheckRequest(service=OIP_SERVICE)),
            *(
                (f"/{name}/ServerReflectionInfo", question)
                for name in REFLECTION
                for question in (
                    ServerReflectionRequest(list_services="*"),
                    ServerReflectionRequest(file_containing_symbol=OIP_SERVICE),
                    ServerReflectionRequest(file_by_filename="x.proto"),
                )
            ),
        ]
    ),
]
GOOD = infer()
METADATA = [
    (),
    *([(name, value)] for name, value in [("x-request-id", "a" * 999), ("traceparent", "x")]),
    *(
        [(name, value)]
        for name, value in [("tracestate", "a" * 3000), ("x-bin", bytes(range(256)))]
    ),
    [("a", "b")] * 50,
]


@pytest.fixture(scope="module")
def gateway(launch_grpc_gateway, modelserver):
    """(GatewayProcess, gRPC address) whose models are there."""
    gateway, address = launch_grpc_gateway(
        modelserver.address, models="affine,pair,echo", ready_when="all", workers=2
    )
    wait_until_ready(gateway)
    return gateway, address


def is_stream(path):
    return path.endswith("ServerReflectionInfo")


def begin(channel, path, raw, **how):
    """The call, begun."""
    if is_stream(path):
        return channel.stream_stream(path)(iter([raw]), **how)
    return channel.unary_unary(path).future(raw, **how)


@pytest.mark.parametrize(
    "count", [pytest.param(1000, id="some"), pytest.param(10_000, id="all", marks=pytest.mark.slow)]
)
def test_mutated_messages_get_proper_codes_and_harm_nobody(gateway, count):
    process, address = gateway
    workers, rng = Workers(process), random.Random(7)
    codes, waiting = Counter(), []
    with grpc.insecure_channel(address) as channel:
        good = channel.unary_unary(INFER, inference.ModelInferRequest.SerializeToString)
        expected = good(GOOD, timeout=60)
        for number in range(count):
            path, raw, cls = rng.choice(SEEDS)
            mutated = mutate(raw, cls, rng)
            call = begin(channel, path, mutated, timeout=60, metadata=rng.choice(METADATA))
            waiting.append((path, mutated, call))
            if len(waiting) == IN_FLIGHT or number == count - 1:
                path, mutated, call = waiting.pop(0)
                if is_stream(path):
                    with contextlib.suppress(grpc.RpcError):
                        list(call)
                code = call.code().name
                codes[code] += 1
                assert code in PROPER, f"{path} {mutated}: {code} {call.details()}"
                assert code == "OK" or call.details()
            if number % 50 == 0:
                assert good(GOOD, timeout=60) == expected
    print(dict(codes))
    workers.check()


@pytest.mark.parametrize("path", sorted({path for path, *_ in SEEDS}))
def test_bytes_that_are_no_message_are_their_senders_fault(gateway, path):
    workers = Workers(gateway[0])
    with grpc.insecure_channel(gateway[1]) as channel:
        call = begin(channel, path, b"\xff\xff", timeout=60)
        assert call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "cannot be read as" in call.details()
    workers.check()


def frame(kind, flags, stream, payload=b"", length=None):
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def field(name, value):
    """HPACK's literal without indexing."""
    return b"\0" + integer(len(name), 7) + name + integer(len(value), 7) + value


def integer(value, bits):
    most = (1 << bits) - 1
    if value < most:
        return bytes([value])
    value -= most
    rest = bytearray([most])
    while value >= 128:
        rest.append(value % 128 | 128)
        value //= 128
    return bytes([*rest, value])


def head(path, *more):
    return b"".join(
        field(name, value)
        for name, value in [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", path.encode("latin-1")),
            (b":authority", b"x"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            *more,
        ]
    )


def message(raw, compressed=0, length=None):
    return struct.pack(">BI", compressed, len(raw) if length is None else length) + raw


DATA, HEADERS, PRIORITY, RESET, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = (
    *(0, 1, 2, 3, 4),
    *(6, 7, 8, 9),
)
END_STREAM, END_HEADERS, PADDED = 1, 4, 8
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
BODY = message(GOOD.SerializeToString())
CALL = [
    frame(SETTINGS, 0, 0),
    frame(HEADERS, END_HEADERS, 1, head(INFER)),
    frame(DATA, END_STREAM, 1, BODY),
]
# grpcio 1.84 and 1.85 give a server up for it.
NO_TEXT = [CALL[0], frame(HEADERS, END_HEADERS, 1, head("/\xd8")), CALL[2]]
# What follows the preface: whole conversations, from a call as it should be to known attacks.
TALKS = {
    "a call": CALL,
    "in pieces": [*CALL[:2], *(frame(DATA, 0, 1, BODY[n : n + 1]) for n in range(len(BODY)))],
    "two at once": [*CALL[:2], frame(HEADERS, END_HEADERS, 3, head(PREDICT)), CALL[2]],
    "a lying message": [*CALL[:2], frame(DATA, END_STREAM, 1, message(b"abc", length=1 << 31))],
    "compressed by nothing": [*CALL[:2], frame(DATA, END_STREAM, 1, message(b"abc", compressed=1))],
    "compressed by lies": [
        CALL[0],
        frame(HEADERS, END_HEADERS, 1, head(INFER, (b"grpc-encoding", b"gzip"))),
        frame(DATA, END_STREAM, 1, message(b"\x1f\x8bxx", compressed=1)),
    ],
    "a lying frame": [*CALL[:2], frame(DATA, END_STREAM, 1, BODY, length=(1 << 24) - 1)],
    "padding over the end": [*CALL[:2], frame(DATA, PADDED | END_STREAM, 1, b"\xff" + BODY[:9])],
    "rapid resets": [
        CALL[0],
        *(
            frame(HEADERS, END_HEADERS, stream, head(INFER))
            + frame(RESET, 0, stream, struct.pack(">I", 8))
            for stream in range(1, 400, 2)
        ),
    ],
    "headers without end": [
        CALL[0],
        frame(HEADERS, 0, 1, head(INFER)),
        *([frame(CONTINUATION, 0, 1, field(b"a", b"b" * 4000))] * 40),
    ],
    "headers that repeat a large one": [
        CALL[0],
        frame(
            HEADERS, END_HEADERS, 1, b"\x40\1a" + integer(4000, 7) + b"b" * 4000 + b"\xbe" * 9000
        ),
    ],
    "pings": [CALL[0], *([frame(PING, 0, 0, bytes(8))] * 500)],
    "settings": [CALL[0], *([frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65535))] * 500)],
    "a window of nothing": [
        frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0)),
        *CALL[1:],
        frame(WINDOW, 0, 0, bytes(4)),
    ],
    "a window over the end": [*CALL, *([frame(WINDOW, 0, 1, struct.pack(">I", 2**31 - 1))] * 2)],
    "an even stream": [CALL[0], frame(HEADERS, END_HEADERS, 2, head(INFER))],
    "a stream that is not": [CALL[0], frame(DATA, END_STREAM, 5, BODY)],
    "its own parent": [CALL[0], frame(PRIORITY, 0, 1, struct.pack(">IB", 1, 1)), *CALL[1:]],
    "odd fields": [
        CALL[0],
        frame(
            HEADERS,
            END_HEADERS,
            1,
            head(INFER, (b"grpc-timeout", b"9" * 99 + b"H"), (b"x-bin", b"%"), (b"X", b"\r\n\0")),
        ),
        CALL[2],
    ],
    "odd timeouts": [
        CALL[0],
        frame(HEADERS, END_HEADERS, 1, head(INFER, (b"grpc-timeout", b"-1S"))),
        CALL[2],
    ],
    "no path": [CALL[0], frame(HEADERS, END_HEADERS, 1, head("")), CALL[2]],
    "going away": [frame(GOAWAY, 0, 0, bytes(8)), *CALL],
    "HTTP/1.1": [b"POST / HTTP/1.1\r\n\r\n"],
}


def mutated_talk(rng):
    frames = list(rng.choice(list(TALKS.values())))
    for _ in range(rng.choice((0, 1, 1, 2))):
        at = rng.randrange(len(frames))
        change = rng.randrange(4)
        if change == 0:
            changed = mutate_bytes(frames[at], rng)
            # A path stays text: that grpcio gives up for another one has a test of its own.
            frames[at] = bytes(x & 0x7F for x in changed) if b":path" in changed else changed
        elif change == 1:
            frames[at:at] = rng.choice(list(TALKS.values()))[:3]
        elif change == 2:
            frames[at : at + 1] = [frames[at]] * rng.choice((0, 2, 9))
        else:
            rng.shuffle(frames)
        frames = frames or [b""]
    return (PREFACE if rng.random() < 0.95 else mutate_bytes(PREFACE, rng)) + b"".join(frames)


async def connected(port):
    """Perhaps to the server that was made a moment ago for one that grpcio gave up."""
    while True:
        try:
            loop = asyncio.get_running_loop()
            return (await loop.create_connection(Connection, "127.0.0.1", port))[1]
        except ConnectionRefusedError:
            await asyncio.sleep(0.05)


async def talk(port, data, answered_s=ANSWERED_S):
    """What comes back, within a moment, or so many seconds."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(30):
        connection = await connected(port)
    connection.write(data)
    end = loop.time() + answered_s
    while connection.is_open and loop.time() < end and RESET_OR_END not in connection.data:
        await asyncio.sleep(GIVEN_UP_S)
    connection.abort()
    return connection.data


@pytest.mark.parametrize(
    "count", [pytest.param(400, id="some"), pytest.param(3000, id="all", marks=pytest.mark.slow)]
)
def test_mutated_frames_harm_nobody(gateway, count):
    process, address = gateway
    workers, rng = Workers(process), random.Random(7)
    port = int(address.rpartition(":")[2])

    async def attack():
        talks = [PREFACE + b"".join(each) for each in TALKS.values()]
        talks += [mutated_talk(rng) for _ in range(count)]
        left = iter(talks)

        async def one():
            for data in left:
                await talk(port, data)

        async with grpc.aio.insecure_channel(address, TRY_AGAIN) as channel:
            good = channel.unary_unary(INFER, inference.ModelInferRequest.SerializeToString)
            expected = await good(GOOD, timeout=60, wait_for_ready=True)
            attackers = asyncio.gather(*(one() for _ in range(IN_FLIGHT)))
            while not attackers.done():
                assert await good(GOOD, timeout=60, wait_for_ready=True) == expected
                await asyncio.sleep(0.05)
            await attackers
            usual = await talk(port, PREFACE + b"".join(CALL), answered_s=60)
            assert RESET_OR_END in usual

    asyncio.run(attack())
    workers.check(of="service")  # grpcio has much to say of broken connections


def test_a_path_that_is_no_text_ends_nothing(launch_grpc_gateway, slow):
    """A call that is in flight when such a one comes is answered, and so are those that follow."""
    gateway, address = launch_grpc_gateway(slow[1])
    request = inference.ModelInferRequest(model_name="slow")
    request.inputs.add(name="x", datatype="FP32", shape=[1]).contents.fp32_contents.append(1)

    async def test():
        async with grpc.aio.insecure_channel(address, TRY_AGAIN) as channel:
            ask = channel.unary_unary(INFER, inference.ModelInferRequest.SerializeToString)
            before = asyncio.ensure_future(ask(request, timeout=60))
            assert await asyncio.to_thread(slow[0].arrived.wait, 30)
            for _ in range(3):
                await talk(int(address.rpartition(":")[2]), PREFACE + b"".join(NO_TEXT))
            slow[0].go.set()
            answers = [await before, await ask(request, timeout=60, wait_for_ready=True)]
            assert answers[0] == answers[1]

    asyncio.run(test())
    Workers(gateway).check(of="service")

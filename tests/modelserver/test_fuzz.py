"""20,000 mutated requests: a proper gRPC code for each, no crash, no leak, service as before."""

import json
import random
from collections import Counter
from pathlib import Path

import grpc
import psutil
import pytest
from google.protobuf import json_format, message_factory

from sluice.wire.protos import POOL, serving_pb2  # noqa: F401 (fills POOL)

pytestmark = pytest.mark.slow

MESSAGES, IN_FLIGHT = 20_000, 16
CONFORMANCE = Path(__file__).parents[1] / "conformance" / "grpc.jsonl"
METHODS = ("Predict", "Classify", "Regress", "MultiInference", "GetModelMetadata")

# INTERNAL is gRPC's own for bytes that are no message; UNKNOWN would be an error nobody foresaw.
PROPER = {
    "OK",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "FAILED_PRECONDITION",
    "UNIMPLEMENTED",
    "OUT_OF_RANGE",
    "INTERNAL",
}


def recorded():
    """(method, serialized request, its class) of the recorded exchanges."""
    rows = [json.loads(line) for line in CONFORMANCE.read_text().splitlines()]
    for row in rows:
        if row["method"].rpartition("/")[2] in METHODS:
            cls = message_factory.GetMessageClass(POOL.FindMessageTypeByName(row["request_type"]))
            request = json_format.ParseDict(row["request"], cls())
            yield row["method"], request.SerializeToString(), cls


def mutate(raw, cls, rng):
    """Most of the bytes changed at random are no message any more, so change fields as well."""
    if rng.random() < 0.2:
        return mutate_bytes(raw, rng)
    message = cls.FromString(raw)
    for _ in range(rng.randint(1, 3)):
        mutate_message(message, rng)
    return message.SerializeToString()


def mutate_bytes(raw, rng):
    """A few bytes changed, removed, repeated or put in."""
    mutated = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(mutated) + 1)
        count = rng.randint(1, 8)
        mutated[at : at + rng.choice((0, count))] = rng.choice(
            (rng.randbytes(count), mutated[at : at + count] * 2, b"", b"\xff")
        )
    return bytes(mutated)


def mutate_message(message, rng):
    """One field, at any depth, changed, dropped or repeated."""
    fields = message.ListFields()
    if not fields:
        return
    field, value = rng.choice(fields)
    if rng.random() < 0.1:
        message.ClearField(field.name)
    elif field.message_type and field.message_type.GetOptions().map_entry:
        mutate_map(value, rng)
    elif field.is_repeated:
        mutate_list(value, field, rng)
    elif field.message_type:
        mutate_message(value, rng)
    else:
        setattr(message, field.name, scalar(field, value, rng))


def mutate_map(entries, rng):
    key = rng.choice(sorted(entries))
    if rng.random() < 0.2:
        entries[rng.choice(NAMES)].CopyFrom(entries[key])
    else:
        mutate_message(entries[key], rng)


def mutate_list(values, field, rng):
    at = rng.randrange(len(values))
    choice = rng.randrange(4)
    if choice == 0:
        del values[at]
    elif choice == 1:
        values.extend(list(values) * rng.randint(1, 9))
    elif field.message_type:
        mutate_message(values[at], rng)
    else:
        values[at] = scalar(field, values[at], rng)


NAMES = [
    "",
    "x",
    "y",
    "inputs",
    "image",
    "affine",
    "pair",
    "echo",
    "serving_default",
    "regress",
    "classify",
    "\0",
    "ü" * 50,
    "__saved_model_init_op",
]
INTEGERS = [0, 1, 2, 3, 5, 7, 8, 100, 2**20, 2**31 - 1]
FLOATS = [0.0, -0.0, 1e38, -1e38, float("inf"), float("nan")]


def scalar(field, value, rng):
    if isinstance(value, bytes):
        return mutate_bytes(value, rng)
    if isinstance(value, str):
        return rng.choice(NAMES)
    if isinstance(value, bool):
        return not value
    if isinstance(value, float):
        return rng.choice(FLOATS)
    signed = field.type in (field.TYPE_INT32, field.TYPE_INT64)
    number = rng.choice(INTEGERS) * rng.choice((1, -1) if signed else (1,))
    return number << 32 if field.type == field.TYPE_INT64 and rng.random() < 0.2 else number


@pytest.mark.parametrize("flags", [(), ("--enable_batching",)], ids=["direct", "batching"])
def test_mutated_requests_get_proper_codes_and_harm_nobody(
    launch_modelserver, conformance_models, flags
):
    server = launch_modelserver(
        f"--model_config_file={conformance_models}/models.config",
        "--allow_version_labels_for_unavailable_models",
        *flags,
    )
    process, rng = psutil.Process(server.process.pid), random.Random(7)
    seeds = list(recorded())
    codes, waiting, memory = Counter(), [], []
    with grpc.insecure_channel(
        server.address, [("grpc.max_receive_message_length", -1)]
    ) as channel:
        calls = {method: channel.unary_unary(method) for method, *_ in seeds}
        good = next(raw for method, raw, _ in seeds if method.endswith("/Predict"))
        expected = calls["/tensorflow.serving.PredictionService/Predict"](good, timeout=60)
        for number in range(MESSAGES // 2):
            method, raw, cls = rng.choice(seeds)
            waiting.append(calls[method].future(mutate(raw, cls, rng), timeout=60))
            if len(waiting) == IN_FLIGHT:
                call = waiting.pop(0)
                codes[call.code().name] += 1
                if call.code().name not in PROPER:
                    raise AssertionError(f"{call.code()}: {call.details()}\n{server.log[-2000:]}")
            if number % (MESSAGES // 20) == 0:
                memory.append(process.memory_info().rss)
                reply = calls["/tensorflow.serving.PredictionService/Predict"](good, timeout=60)
                assert reply == expected
    print(dict(codes))
    assert "Traceback" not in server.log, server.log[-3000:]
    # The first tenth fills caches; filled tensors of up to 64 MiB come and go.
    assert memory[-1] < memory[1] * 1.1 + (64 << 20), [rss >> 20 for rss in memory]
    assert server.terminate() == 0

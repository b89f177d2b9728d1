"""20,000 mutated requests: a proper gRPC code for each, no crash, no leak, service as before."""
import json
import random
from collections import Counter
from pathlib import Path

import grpc
import psutil
import pytest
from google.protobuf import json_format, message_factory

from service.protos import POOL, serving_pb2  # noqa: F401 (fills POOL)

pytestmark = pytest.mark.slow

MESSAGES, IN_FLIGHT = 20_000, 16
CONFORMANCE = Path(__file__).parents[1] / "conformance" / "grpc.jsonl"
METHODS = ("Predict", "Classify", "Regress", "MultiInference", "GetModelMetadata",
           "GetModelStatus")

# INTERNAL is gRPC's own for bytes that are no message; UNKNOWN would be an error nobody foresaw.
PROPER = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "UNIMPLEMENTED",
          "OUT_OF_RANGE", "INTERNAL"}


def recorded():
    """(method, serialized request) of the recorded exchanges."""
    rows = [json.loads(line) for line in CONFORMANCE.read_text().splitlines()]
    for row in rows:
        if row["method"].rpartition("/")[2] in METHODS:
            cls = message_factory.GetMessageClass(POOL.FindMessageTypeByName(row["request_type"]))
            yield row["method"], json_format.ParseDict(row["request"], cls()).SerializeToString()


def mutate(raw, rng):
    """A few bytes changed, removed, repeated or put in."""
    mutated = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(mutated) + 1)
        kind = rng.randrange(5)
        if kind == 0 and at < len(mutated):
            mutated[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(mutated):
            mutated[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            del mutated[at:at + rng.randint(1, 8)]
        elif kind == 3:
            mutated[at:at] = mutated[at:at + rng.randint(1, 8)]
        else:
            mutated[at:at] = rng.randbytes(rng.randint(1, 8))
    return bytes(mutated)


@pytest.mark.parametrize("flags", [(), ("--enable_batching",)], ids=["direct", "batching"])
def test_mutated_requests_get_proper_codes_and_harm_nobody(
        launch_modelserver, conformance_models, flags):
    server = launch_modelserver(f"--model_config_file={conformance_models}/models.config",
                                "--allow_version_labels_for_unavailable_models", *flags)
    process, rng = psutil.Process(server.process.pid), random.Random(7)
    seeds = list(recorded())
    codes, waiting, memory = Counter(), [], []
    with grpc.insecure_channel(server.address) as channel:
        calls = {method: channel.unary_unary(method) for method, _ in seeds}
        good = next(raw for method, raw in seeds if method.endswith("/Predict"))
        expected = calls["/tensorflow.serving.PredictionService/Predict"](good, timeout=60)
        for number in range(MESSAGES // 2):
            method, raw = rng.choice(seeds)
            waiting.append(calls[method].future(mutate(raw, rng), timeout=60))
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

"""20,000 mutated requests: a proper gRPC code for each, no crash, no leak, service as before."""

import random
from collections import Counter

import grpc
import psutil
import pytest

from tests.mutations import mutate, recorded

pytestmark = pytest.mark.slow

MESSAGES, IN_FLIGHT = 20_000, 16

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

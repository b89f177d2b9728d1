"""The twin against what it wraps: requests/s, latency and CPU, beside TensorFlow in one process.

    python benchmarks/modelserver.py [--seconds 4] [--models small,large] [--clients 1,8,32,64]

`in-process` calls the same session's callable in a loop, with no server: what there is to reach.
`twin` and `twin, batching` are real servers under gRPC clients in a process of their own, on the
same cores. CPU is the server's, in µs a request; `over` is what it spends beyond TensorFlow's own
share, measured in-process at the batch size named.

A lone client's latency is compared once more, with both servers up and asked in turn, and a second
server without batching beside them: how far the two equal ones are apart is the noise.
"""
import argparse
import asyncio
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import psutil

from service.protos.serving_pb2 import PredictRequest
from service.tensors import encode_tensor

SHAPES = {"small": (28, 28, 1), "large": (256, 256, 3)}
BATCHING = """max_batch_size { value: 32 } batch_timeout_micros { value: 0 }
num_batch_threads { value: 1 } max_enqueued_batches { value: 100 }"""
PREDICT = "/tensorflow.serving.PredictionService/Predict"
SERVERS = {"twin": [], "twin, batching": ["--enable_batching"]}
LONE = SERVERS | {"twin again": []}
CALLS_IN_A_TURN = 8  # the first of them is not counted: it wakes a server that slept


class Row(NamedTuple):
    model: str
    server: str
    clients: str
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    over_us: float | None


def main() -> None:
    options = _options()
    if options.role == "client":
        print(json.dumps(asyncio.run(_load(options))))
        return
    if options.role == "floor":
        print(json.dumps([_floor(options, size) for size in (1, 32)]))
        return
    if options.role == "lone":
        print(json.dumps(asyncio.run(_in_turn(options))))
        return
    with tempfile.TemporaryDirectory() as directory:
        rows = [row for model in options.models.split(",")
                for row in _measure(model, Path(directory), options)]
        lone = {model: _measure_lone(model, Path(directory), options)
                for model in options.models.split(",")}
    _print_table(rows)
    _print_lone(lone)


def _measure(model: str, directory: Path, options: argparse.Namespace) -> Iterator[Row]:
    _export(model, directory / model)
    floors = _itself("floor", "--models", model, "--target", str(directory / model / "1"),
                     "--seconds", str(options.seconds))
    tensorflow_us = {floor["batch"]: floor["cpu_us"] for floor in floors}
    for floor in floors:
        yield Row(model, "in-process", f"batch {floor['batch']}", floor["per_second"],
                  floor["p50_ms"], floor["p99_ms"], floor["cpu_us"], None)
    for server, flags in SERVERS.items():
        with _running(model, directory, flags) as (address, process):
            for clients in options.clients.split(","):
                batch = 32 if flags and int(clients) >= 32 else 1
                before = _cpu_s(process)
                load = _itself("client", "--models", model, "--target", address,
                               "--clients", clients, "--seconds", str(options.seconds))
                cpu_us = (_cpu_s(process) - before) / load["requests"] * 1e6
                yield Row(model, server, clients, load["per_second"], load["p50_ms"],
                          load["p99_ms"], cpu_us, cpu_us - tensorflow_us[batch])


def _measure_lone(model: str, directory: Path, options: argparse.Namespace) -> dict[str, float]:
    """By server, the median milliseconds of a client that is alone with it."""
    with ExitStack() as stack:
        addresses = [stack.enter_context(_running(model, directory, flags))[0]
                     for flags in LONE.values()]
        medians = _itself("lone", "--models", model, "--target", ",".join(addresses),
                          "--seconds", str(len(LONE) * options.seconds))
    return dict(zip(LONE, medians, strict=True))


def _export(model: str, directory: Path) -> None:
    code = ("import sys, models; m = models.build('cnn_sequential', classes=10, "
            "input_shape=tuple(map(int, sys.argv[1].split(',')))); "
            "m.export(sys.argv[2] + '/1', verbose=False)")
    shape = ",".join(map(str, SHAPES[model]))
    subprocess.run([sys.executable, "-c", code, shape, str(directory)], check=True,
                   capture_output=True)


@contextmanager
def _running(model: str, directory: Path, flags: list[str]) -> Iterator[tuple[str, Any]]:
    parameters = directory / "batching"
    parameters.write_text(BATCHING)
    if flags:
        flags = [*flags, f"--batching_parameters_file={parameters}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "service.modelserver", "--port=0", f"--model_name={model}",
         f"--model_base_path={directory / model}", "--file_system_poll_wait_seconds=0", *flags],
        stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"Running gRPC ModelServer at 0\.0\.0\.0:(\d+)", line):
                yield f"127.0.0.1:{found[1]}", psutil.Process(process.pid)
                return
        raise SystemExit("the model server ended before it was ready")
    finally:
        process.terminate()
        process.communicate()


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _itself(role: str, *arguments: str) -> Any:
    done = subprocess.run([sys.executable, __file__, f"--role={role}", *arguments], check=True,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return json.loads(done.stdout)


# ---- in a process of its own: the clients ----


async def _load(options: argparse.Namespace) -> dict[str, float]:
    raw, clients = await _request(options.models, options.target), int(options.clients)
    # A few connections: one HTTP/2 connection is one lane, and 64 are 64 pollers.
    channels = [grpc.aio.insecure_channel(options.target, [("lane", lane)])
                for lane in range(min(clients, 4))]
    calls = [channel.unary_unary(PREDICT) for channel in channels]
    await asyncio.gather(*(calls[client % len(calls)](raw) for client in range(clients)))
    latencies: list[float] = []
    started = time.perf_counter()

    async def call_on(call: Any) -> None:
        while time.perf_counter() - started < options.seconds:
            before = time.perf_counter()
            await call(raw)
            latencies.append(time.perf_counter() - before)

    await asyncio.gather(*(call_on(calls[client % len(calls)]) for client in range(clients)))
    return _summary(latencies, time.perf_counter() - started) | {
        "requests": len(latencies) + clients}


async def _in_turn(options: argparse.Namespace) -> list[float]:
    """The median milliseconds of a call to each of the targets, one call at a time."""
    targets = options.target.split(",")
    raw = await _request(options.models, targets[0])
    calls = [grpc.aio.insecure_channel(target).unary_unary(PREDICT) for target in targets]
    latencies: list[list[float]] = [[] for _ in calls]
    started = time.perf_counter()
    while time.perf_counter() - started < options.seconds:
        for index in random.sample(range(len(calls)), len(calls)):
            for turn in range(CALLS_IN_A_TURN):
                before = time.perf_counter()
                await calls[index](raw)
                if turn:
                    latencies[index].append((time.perf_counter() - before) * 1e3)
    return [statistics.median(each) for each in latencies]


async def _request(model: str, address: str) -> bytes:
    """A serialized PredictRequest of one image."""
    image = np.random.default_rng(7).random((1, *SHAPES[model]), np.float32)
    name = await _input_name(model, address)
    request = PredictRequest(inputs={name: encode_tensor(image, content=True)})
    request.model_spec.name = model
    return request.SerializeToString()


async def _input_name(model: str, address: str) -> str:
    from service.protos import serving_pb2_grpc
    from service.protos.serving_pb2 import GetModelMetadataRequest, ModelSpec, SignatureDefMap
    async with grpc.aio.insecure_channel(address) as channel:
        reply = await serving_pb2_grpc.PredictionServiceStub(channel).GetModelMetadata(
            GetModelMetadataRequest(model_spec=ModelSpec(name=model),
                                    metadata_field=["signature_def"]))
    signatures = SignatureDefMap()
    reply.metadata["signature_def"].Unpack(signatures)
    return next(iter(signatures.signature_def["serving_default"].inputs))


def _summary(latencies: list[float], seconds: float, batch: int = 1) -> dict[str, float]:
    latencies = sorted(latencies)
    return {"per_second": len(latencies) * batch / seconds,
            "p50_ms": latencies[len(latencies) // 2] * 1e3,
            "p99_ms": latencies[int(len(latencies) * 0.99)] * 1e3}


# ---- in a process of its own: TensorFlow alone ----


def _floor(options: argparse.Namespace, batch: int) -> dict[str, float]:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    from tensorflow.core.protobuf.config_pb2 import ConfigProto

    from service.modelserver.servable import Run, load_servable
    servable = load_servable(Path(options.target), ["serve"], ConfigProto())
    signature = servable.signatures["serving_default"]
    images = np.random.default_rng(7).random((batch, *SHAPES[options.models]), np.float32)
    run = Run({info.name: images for info in signature.inputs.values()},
              tuple(info.name for info in signature.outputs.values()))
    servable.run(run)
    latencies, process = [], psutil.Process()
    started, cpu = time.perf_counter(), _cpu_s(process)
    while time.perf_counter() - started < options.seconds:
        before = time.perf_counter()
        servable.run(run)
        latencies.append(time.perf_counter() - before)
    cpu_us = (_cpu_s(process) - cpu) / (len(latencies) * batch) * 1e6
    return _summary(latencies, time.perf_counter() - started, batch) | {
        "batch": batch, "cpu_us": cpu_us}


def _print_table(rows: list[Row]) -> None:
    print(f"{date.today()}, {os.cpu_count()} CPUs shared by server and clients\n")
    print(f"{'model':6} {'server':15} {'clients':>9} {'images/s':>9} {'p50 ms':>8} {'p99 ms':>8} "
          f"{'CPU µs':>8} {'over µs':>8}")
    for row in rows:
        over = "" if row.over_us is None else f"{row.over_us:8.0f}"
        print(f"{row.model:6} {row.server:15} {row.clients:>9} {row.per_second:9.1f} "
              f"{row.p50_ms:8.2f} {row.p99_ms:8.2f} {row.cpu_us:8.0f} {over:>8}")


def _print_lone(lone: dict[str, dict[str, float]]) -> None:
    print("\nA lone client, the servers asked in turn: p50 ms, and beside the first")
    for model, medians in lone.items():
        first = next(iter(medians.values()))
        for server, median in medians.items():
            print(f"{model:6} {server:15} {median:8.3f} {median / first:6.3f}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--models", default="small,large")
    parser.add_argument("--clients", default="1,8,32,64")
    parser.add_argument("--role", default="all", help=argparse.SUPPRESS)
    parser.add_argument("--target", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""The twin against what it wraps: requests/s, latency and CPU, beside TensorFlow in one process.

    python benchmarks/modelserver.py [--seconds 3] [--rounds 3] [--models small,large]
                                     [--clients 1,8,32,64]

`in-process` calls the same session's callable in a loop, with no server: what there is to reach,
once as Python comes and once on the huge pages that the twin puts itself on. `twin` and
`twin, batching` are real servers under gRPC clients in a process of their own, on the same cores.
CPU is the server's, in µs a request; `over` is what it spends beyond TensorFlow's own share,
measured in-process at the batch size named. `gRPC alone` takes the same messages and answers
nothing: its CPU, the client's and TensorFlow's say how many images the cores could do if nothing
else cost anything, at each number of clients; a share of that is what the twin is worth. Batches
are TensorFlow's at 1, and with batching at 32 where there are so many clients.

A shared machine is fast and slow by turns, so every round asks them all, in an order of its own:
the table has the medians of the rounds, and shares are taken within a round.

A lone client's latency is compared once more, call by call, and with a second server without
batching: how far the two equal ones are apart is the noise.
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
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import psutil
from loads import PREDICT, Figures
from measuring import cores, in_a_process

from sluice.wire.protos.serving_pb2 import PredictRequest
from sluice.wire.tensors import encode_tensor

SHAPES = {"small": (28, 28, 1), "large": (256, 256, 3)}
BATCHING = """max_batch_size { value: 32 } batch_timeout_micros { value: 0 }
num_batch_threads { value: 1 } max_enqueued_batches { value: 100 }"""
STARTED = "Running gRPC ModelServer at 0.0.0.0:{}"
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
FLOORS: dict[str, dict[str, str]] = {"in-process": {}, "in-process, huge": HUGE_PAGES}
SERVERS = {"twin": [], "twin, batching": ["--enable_batching"]}
LONE = SERVERS | {"twin again": []}
BARE = "gRPC alone"
FULL_BATCH = 32
CALLS_IN_A_TURN = 8  # the first of them is not counted: it wakes a server that slept

Key = tuple[str, int]  # who answers, and for how many: clients, or images in a batch


class Server(NamedTuple):
    address: str
    process: psutil.Process


def main() -> None:
    options = _options()
    roles = {
        "bare": lambda: asyncio.run(_answer_nothing()),
        "lone": lambda: asyncio.run(_in_turn(options)),
    }
    if options.role in roles:
        print(json.dumps(roles[options.role]()))
        return
    print(
        f"{date.today()}, {cores()} CPUs shared by server and clients, "
        f"medians of {options.rounds} rounds"
    )
    with tempfile.TemporaryDirectory() as directory:
        for model in options.models.split(","):
            _compare(model, Path(directory), options)


def _compare(model: str, directory: Path, options: argparse.Namespace) -> None:
    _export(model, directory / model)
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(_twin(model, directory, flags))
            for name, flags in LONE.items()
        }
        request = directory / "request"
        request.write_bytes(_request(model, servers["twin"].address))
        servers[BARE] = stack.enter_context(_running([__file__, "--role=bare"], HUGE_PAGES))
        rounds = [
            _round(directory / model / "1", servers, request, options)
            for _ in range(options.rounds)
        ]
        lone = _itself(
            "lone",
            "--seconds",
            str(len(LONE) * options.seconds),
            "--request",
            str(request),
            "--target",
            ",".join(servers[name].address for name in LONE),
        )
    _print_table(model, rounds)
    _print_shares(model, rounds)
    _print_worth(model, rounds, [n for n in map(int, options.clients.split(",")) if n > 1])
    _print_lone(model, dict(zip(LONE, lone, strict=True)))


def _round(
    saved_model: Path,
    servers: dict[str, Server],
    request: Path,
    options: argparse.Namespace,
) -> dict[Key, Figures]:
    """Everything once, so that what is compared is measured within a minute."""
    figures: dict[Key, Figures] = {}
    for name, variables in FLOORS.items():
        for batch in (1, FULL_BATCH):
            figures[name, batch] = in_a_process(
                "tensorflow", saved_model, options.seconds, batch, **variables
            )
    for clients in map(int, options.clients.split(",")):
        for name in random.sample(list(SERVERS), len(SERVERS)):
            load = _loaded(servers[name], clients, request, options)
            floor = figures["in-process, huge", _batch_of(name, clients)]
            load["over_us"] = load["cpu_us"] - floor["cpu_us"]
            figures[name, clients] = load
    for clients in {FULL_BATCH, *map(int, options.clients.split(","))}:
        figures[BARE, clients] = _loaded(servers[BARE], clients, request, options)
    return figures


def _batch_of(name: str, clients: int) -> int:
    """How many images TensorFlow gets at once from so many clients of a server, at best."""
    return FULL_BATCH if SERVERS[name] and clients >= FULL_BATCH else 1


def _loaded(server: Server, clients: int, request: Path, options: argparse.Namespace) -> Figures:
    before = _cpu_s(server.process)
    load = in_a_process("grpc", server.address, request, clients, options.seconds)
    load["cpu_us"] = (_cpu_s(server.process) - before) / load["requests"] * 1e6
    return load


def _export(model: str, directory: Path) -> None:
    code = (
        "import sys, models; m = models.build('cnn_sequential', classes=10, "
        "input_shape=tuple(map(int, sys.argv[1].split(',')))); "
        "m.export(sys.argv[2] + '/1', verbose=False)"
    )
    shape = ",".join(map(str, SHAPES[model]))
    subprocess.run(
        [sys.executable, "-c", code, shape, str(directory)], check=True, capture_output=True
    )


def _request(model: str, address: str) -> bytes:
    """A serialized PredictRequest of one image."""
    image = np.random.default_rng(7).random((1, *SHAPES[model]), np.float32)
    request = PredictRequest(
        inputs={_input_name(model, address): encode_tensor(image, content=True)}
    )
    request.model_spec.name = model
    return request.SerializeToString()


def _input_name(model: str, address: str) -> str:
    from sluice.wire.protos import serving_pb2_grpc
    from sluice.wire.protos.serving_pb2 import GetModelMetadataRequest, ModelSpec, SignatureDefMap

    with grpc.insecure_channel(address) as channel:
        reply = serving_pb2_grpc.PredictionServiceStub(channel).GetModelMetadata(
            GetModelMetadataRequest(
                model_spec=ModelSpec(name=model), metadata_field=["signature_def"]
            )
        )
    signatures = SignatureDefMap()
    reply.metadata["signature_def"].Unpack(signatures)
    return next(iter(signatures.signature_def["serving_default"].inputs))


def _twin(model: str, directory: Path, flags: list[str]) -> AbstractContextManager[Server]:
    parameters = directory / "batching"
    parameters.write_text(BATCHING)
    if flags:
        flags = [*flags, f"--batching_parameters_file={parameters}"]
    return _running(
        [
            "-m",
            "service.modelserver",
            "--port=0",
            f"--model_name={model}",
            f"--model_base_path={directory / model}",
            "--file_system_poll_wait_seconds=0",
            *flags,
        ]
    )


@contextmanager
def _running(arguments: list[str], variables: Mapping[str, str] | None = None) -> Iterator[Server]:
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | dict(variables or {}),
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(STARTED.format(r"(\d+)"), line):
                yield Server(f"127.0.0.1:{found[1]}", psutil.Process(process.pid))
                return
        raise SystemExit("the model server ended before it was ready")
    finally:
        process.terminate()
        process.communicate()


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _itself(role: str, *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, __file__, f"--role={role}", *arguments],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    return json.loads(done.stdout)


# ---- in a process of its own: the clients ----


async def _in_turn(options: argparse.Namespace) -> list[float]:
    """The median milliseconds of a call to each of the targets, one call at a time."""
    targets = options.target.split(",")
    raw = Path(options.request).read_bytes()
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


# ---- in a process of its own: gRPC alone ----


async def _answer_nothing() -> None:
    async def answer(_raw: bytes, _context: Any) -> bytes:
        return b""

    package, _, method = PREDICT[1:].partition("/")
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                package, {method: grpc.unary_unary_rpc_method_handler(answer)}
            ),
        )
    )
    port = server.add_insecure_port("0.0.0.0:0")
    await server.start()
    print(STARTED.format(port), file=sys.stderr, flush=True)
    await server.wait_for_termination()


# ---- what it prints ----


def _print_table(model: str, rounds: list[dict[Key, Figures]]) -> None:
    print(
        f"\n{model:16} {'clients':>8} {'images/s':>9} {'p50 ms':>8} {'p99 ms':>8} {'CPU µs':>8} "
        f"{'over µs':>8}"
    )
    for name, many in rounds[0]:
        middle = {
            figure: statistics.median(each[name, many][figure] for each in rounds)
            for figure in rounds[0][name, many]
        }
        over = f"{middle['over_us']:8.0f}" if "over_us" in middle else ""
        print(
            f"{name:16} {'batch ' * (name in FLOORS) + str(many):>8} "
            f"{middle['per_second']:9.1f} {middle['p50_ms']:8.2f} {middle['p99_ms']:8.2f} "
            f"{middle['cpu_us']:8.0f} {over:>8}"
        )


def _print_shares(model: str, rounds: list[dict[Key, Figures]]) -> None:
    ours = "twin, batching"
    if (ours, FULL_BATCH) not in rounds[0]:
        return
    for floor in FLOORS:
        whole = [each[floor, FULL_BATCH] for each in rounds]
        shares = [
            each[ours, FULL_BATCH]["per_second"] / figures["per_second"]
            for each, figures in zip(rounds, whole, strict=True)
        ]
        limits = [
            _busy_rate(
                figures["cpu_us"]
                + each[BARE, FULL_BATCH]["cpu_us"]
                + each[BARE, FULL_BATCH]["client_us"]
            )
            / figures["per_second"]
            for each, figures in zip(rounds, whole, strict=True)
        ]
        print(
            f"{model}: {FULL_BATCH} clients of {ours} get {_spread(shares)} of {floor} in "
            f"batches of {FULL_BATCH}; gRPC alone leaves {_spread(limits)}"
        )


def _print_worth(model: str, rounds: list[dict[Key, Figures]], clients: list[int]) -> None:
    print(f"{model}: of what TensorFlow, gRPC alone and the clients leave the cores to do")
    for name in SERVERS:
        for many in clients:
            shares = []
            for each in rounds:
                bare, floor = each[BARE, many], each["in-process, huge", _batch_of(name, many)]
                reach = _busy_rate(floor["cpu_us"] + bare["cpu_us"] + bare["client_us"])
                shares.append(each[name, many]["per_second"] / reach)
            print(f"    {name:15} {many:3} clients {_spread(shares)}")


def _busy_rate(cpu_us: float) -> float:
    """Images per second that keep every core busy."""
    return cores() * 1e6 / cpu_us


def _spread(shares: list[float]) -> str:
    return f"{statistics.median(shares):.0%} ({min(shares):.0%} to {max(shares):.0%})"


def _print_lone(model: str, medians: dict[str, float]) -> None:
    first = next(iter(medians.values()))
    print(f"{model}: a lone client, call by call: p50 ms, and beside the first")
    for name, median in medians.items():
        print(f"    {name:15} {median:8.3f} {median / first:6.3f}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", default="small,large")
    parser.add_argument("--clients", default="1,8,32,64")
    parser.add_argument("--role", default="all", help=argparse.SUPPRESS)
    parser.add_argument("--target", default="", help=argparse.SUPPRESS)
    parser.add_argument("--request", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()

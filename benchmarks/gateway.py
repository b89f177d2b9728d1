"""What a request costs at the gateway, beside two floors measured in the same run.

    python benchmarks/gateway.py [--seconds 4] [--workers 1]

`Flask hello` is a hello world under the same gunicorn: what there is without us. `in-process` calls
the model's own session in a loop: what there is without any server. The others are a real gateway
before a real embedded model server, under clients in a process of their own, all on the same cores.
CPU is that of the gateway's workers alone, in µs a request.
"""

import argparse
import asyncio
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil

SHAPES = {"small": (28, 28, 1), "large": (256, 256, 3)}


class Case(NamedTuple):
    name: str
    model: str
    kind: str
    connections: int


CASES = [
    Case("JSON 28x28x1", "small", "json", 1),
    Case("JSON 28x28x1", "small", "json", 32),
    Case("JSON 256x256x3", "large", "json", 8),
    Case("JPEG 256x256x3", "large", "jpeg", 8),
    Case("npy 256x256x3", "large", "npy", 8),
    Case("OIP binary 256x256x3", "large", "oip", 8),
]


def main() -> None:
    options = _options()
    if options.role == "client":
        print(json.dumps(asyncio.run(_load(options))))
    elif options.role == "floor":
        print(json.dumps(_floor(options)))
    else:
        _print_heading()
        _decode_rows()
        with tempfile.TemporaryDirectory() as directory:
            _serve_rows(Path(directory), options)


# ---- decoding alone ----


def _decode_rows() -> None:
    """Parsing and validating one 256x256x3 image as JSON, against two ways people do it."""
    import orjson

    from service.gateway.decode.tfs_json import decode_predict
    from service.gateway.signature import Signatures
    from sluice.wire.protos.tensorflow_pb2 import DataType, SignatureDef
    from sluice.wire.tensors import encode_shape

    proto = SignatureDef()
    proto.inputs["image"].dtype = DataType.DT_FLOAT
    proto.inputs["image"].tensor_shape.CopyFrom(encode_shape((-1, *SHAPES["large"])))
    signatures, body = Signatures({"serving_default": proto}), _body("json", "large", "image")

    def ours() -> None:
        query = decode_predict(body, signatures)
        query.signature.validate(query.inputs)

    ways = {
        "decode and validate": ours,
        "orjson + np.array": lambda: np.array(orjson.loads(body)["instances"], np.float32),
        "json + np.array": lambda: np.array(json.loads(body)["instances"], np.float32),
    }
    print(f"one 256x256x3 image as JSON, {len(body) / 1e6:.1f} MB, median of 15:")
    for name, way in ways.items():
        print(f"  {name:20} {_median_ms(way):7.1f} ms")
    print()


def _median_ms(work: Any) -> float:
    seconds = []
    for _ in range(15):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return sorted(seconds)[7] * 1e3


# ---- servers ----


def _serve_rows(directory: Path, options: argparse.Namespace) -> None:
    _itself("export", "--target", str(directory))
    for model, kind in (("small", "json"), ("large", "json"), ("large", "jpeg")):
        floor = _itself(
            "floor",
            "--model",
            model,
            "--kind",
            kind,
            "--seconds",
            str(options.seconds),
            "--target",
            str(directory / model / "1"),
        )
        _print_row(f"in-process, {kind} {'x'.join(map(str, SHAPES[model]))}", 1, floor, None)
    with _hello(directory, options) as (port, workers):
        for connections in (1, 32):
            _measure(Case("Flask hello", "small", "hello", connections), port, workers, options)
    with _stack(directory, options) as (port, workers):
        for case in CASES:
            _measure(case, port, workers, options)


def _measure(
    case: Case, port: int, workers: list[psutil.Process], options: argparse.Namespace
) -> None:
    before = _cpu_s(workers)
    load = _itself(
        "client",
        "--target",
        str(port),
        "--model",
        case.model,
        "--kind",
        case.kind,
        "--connections",
        str(case.connections),
        "--seconds",
        str(options.seconds),
    )
    _print_row(
        case.name, case.connections, load, (_cpu_s(workers) - before) / load["requests"] * 1e6
    )


@contextmanager
def _stack(
    directory: Path, options: argparse.Namespace
) -> Iterator[tuple[int, list[psutil.Process]]]:
    command = [
        sys.executable,
        "-m",
        "service.modelserver",
        "--port=0",
        "--grpc_max_threads=64",
        f"--model_repository={directory}",
    ]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        port = _wait_for(server, r"Running gRPC ModelServer at 0\.0\.0\.0:(\d+)")
        with _gunicorn(
            ["-m", "service.cli", "gateway"], options, SLUICE_MODEL_SERVER=f"127.0.0.1:{port}"
        ) as found:
            yield found
    finally:
        server.terminate()
        server.communicate()


@contextmanager
def _hello(
    directory: Path, options: argparse.Namespace
) -> Iterator[tuple[int, list[psutil.Process]]]:
    (directory / "hello.py").write_text(
        "from flask import Flask\napp = Flask(__name__)\n"
        "@app.post('/')\ndef hello():\n    return {'hello': 'world'}\n"
    )
    port = _free_port()
    with _gunicorn(
        [
            "-m",
            "gunicorn",
            f"--bind=127.0.0.1:{port}",
            "--worker-class=gthread",
            "--threads=16",
            f"--workers={options.workers}",
            "--no-control-socket",
            f"--chdir={directory}",
            "hello:app",
        ],
        options,
        SLUICE_HTTP_PORT=str(port),
    ) as found:
        yield found


@contextmanager
def _gunicorn(
    command: list[str], options: argparse.Namespace, **environment: str
) -> Iterator[tuple[int, list[psutil.Process]]]:
    settings = {
        "SLUICE_WORKERS": str(options.workers),
        "SLUICE_LOG_LEVEL": "warning",
        "SLUICE_HTTP_PORT": str(_free_port()),
    } | environment
    server = subprocess.Popen(
        [sys.executable, *command], env=os.environ | settings, stderr=subprocess.DEVNULL
    )
    try:
        port = int(settings["SLUICE_HTTP_PORT"])
        _wait_until_listening(port)
        time.sleep(1)  # the workers' imports
        yield port, psutil.Process(server.pid).children()
    finally:
        server.terminate()
        server.wait()


def _wait_for(server: subprocess.Popen[str], pattern: str) -> str:
    assert server.stderr is not None
    for line in server.stderr:
        if found := re.search(pattern, line):
            return found[1]
    raise SystemExit("the model server ended before it was ready")


def _wait_until_listening(port: int) -> None:
    import socket

    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _cpu_s(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def _itself(role: str, *arguments: str) -> Any:
    if role == "export":
        return _export(Path(arguments[1]))
    done = subprocess.run(
        [sys.executable, __file__, f"--role={role}", *arguments],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    return json.loads(done.stdout)


def _export(directory: Path) -> None:
    code = (
        "import sys, models, pathlib; from training.publishing import saved_model; "
        "from training.data.heads import Classes; "
        "m = models.build('cnn_functional', classes=10, "
        "input_shape=tuple(map(int, sys.argv[1].split(',')))); "
        "p = pathlib.Path(sys.argv[2]); p.mkdir(parents=True); "
        "saved_model.write(m, {'label': Classes(tuple('0123456789'))}, p)"
    )
    for model, shape in SHAPES.items():
        subprocess.run(
            [sys.executable, "-c", code, ",".join(map(str, shape)), str(directory / model / "1")],
            check=True,
            capture_output=True,
        )


# ---- in a process of its own: the clients ----


async def _load(options: argparse.Namespace) -> dict[str, float]:
    request = _request(options.kind, options.model)
    latencies: list[float] = []
    connections = [
        await asyncio.open_connection("127.0.0.1", int(options.target))
        for _ in range(options.connections)
    ]
    await asyncio.gather(*(_ask(*connection, request) for connection in connections))
    started = time.perf_counter()

    async def keep_asking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while time.perf_counter() - started < options.seconds:
            before = time.perf_counter()
            await _ask(reader, writer, request)
            latencies.append(time.perf_counter() - before)

    await asyncio.gather(*(keep_asking(*connection) for connection in connections))
    return _summary(latencies, time.perf_counter() - started) | {
        "requests": len(latencies) + options.connections
    }


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 200 " in head.split(b"\r\n")[0], head
    length = re.search(rb"content-length: (\d+)", head, re.I)
    assert length, head
    await reader.readexactly(int(length[1]))


def _request(kind: str, model: str) -> bytes:
    path = {"hello": "/", "oip": f"/v2/models/{model}/infer"}.get(
        kind, f"/v1/models/{model}:predict"
    )
    body = b"{}" if kind == "hello" else _body(kind, model, "image")
    types = {"jpeg": "image/jpeg", "npy": "application/x-npy", "oip": "application/octet-stream"}
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: {types.get(kind, 'application/json')}\r\n"
    )
    if kind == "oip":
        head += f"Inference-Header-Content-Length: {body.index(b'}]}') + 3}\r\n"
    return head.encode() + b"\r\n" + body


def _body(kind: str, model: str, name: str) -> bytes:
    shape = SHAPES[model]
    rng = np.random.default_rng(7)
    if kind == "jpeg":
        from PIL import Image

        smooth = Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).resize(shape[:2])
        buffer = io.BytesIO()
        smooth.save(buffer, "JPEG", quality=90)
        return buffer.getvalue()
    image = rng.random((1, *shape))
    if kind == "json":
        return json.dumps({"instances": image.tolist()}).encode()
    image = image.astype(np.float32)
    if kind == "npy":
        buffer = io.BytesIO()
        np.save(buffer, image)
        return buffer.getvalue()
    header = {
        "inputs": [
            {
                "name": name,
                "shape": image.shape,
                "datatype": "FP32",
                "parameters": {"binary_data_size": image.nbytes},
            }
        ]
    }
    return json.dumps(header, separators=(",", ":")).encode() + image.tobytes()


# ---- in a process of its own: TensorFlow alone ----


def _floor(options: argparse.Namespace) -> dict[str, float]:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    from training.publishing.saved_model import Session

    signature = "encoded" if options.kind == "jpeg" else "serving_default"
    image: Any = (
        np.array([_body("jpeg", "large", "")], object)
        if options.kind == "jpeg"
        else np.random.default_rng(7).random((1, *SHAPES[options.model]), np.float32)
    )
    latencies = []
    with Session(Path(options.target)) as session:
        session.run(signature, {"image": image})
        started = time.perf_counter()
        while time.perf_counter() - started < options.seconds:
            before = time.perf_counter()
            session.run(signature, {"image": image})
            latencies.append(time.perf_counter() - before)
        return _summary(latencies, time.perf_counter() - started)


def _summary(latencies: list[float], seconds: float) -> dict[str, float]:
    latencies = sorted(latencies)
    return {
        "per_second": len(latencies) / seconds,
        "p50_ms": latencies[len(latencies) // 2] * 1e3,
        "p99_ms": latencies[int(len(latencies) * 0.99)] * 1e3,
    }


def _print_heading() -> None:
    print(f"{date.today()}, {os.cpu_count()} CPUs shared by servers and clients\n")


def _print_row(name: str, connections: int, load: dict[str, float], cpu_us: float | None) -> None:
    cpu = "" if cpu_us is None else f"{cpu_us:8.0f} µs CPU at the gateway"
    print(
        f"{name:30} {connections:3} connections {load['per_second']:8.1f}/s "
        f"p50 {load['p50_ms']:7.2f} ms  p99 {load['p99_ms']:7.2f} ms  {cpu}",
        flush=True,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--workers", type=int, default=1)
    for hidden in ("role", "target", "model", "kind"):
        parser.add_argument(f"--{hidden}", default="", help=argparse.SUPPRESS)
    parser.add_argument("--connections", type=int, default=1, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""What loads a server, or does its work without one; each in a process of its own.

    python benchmarks/loads.py grpc ADDRESS REQUEST_FILE CLIENTS SECONDS
    python benchmarks/loads.py http URL BODY_FILE CONNECTIONS SECONDS [HEADER ...]
    python benchmarks/loads.py pauses URL BODY_FILE SECONDS
    python benchmarks/loads.py alone BODY_FILE SECONDS
    python benchmarks/loads.py tensorflow SAVED_MODEL SECONDS ROWS [PICTURE]

All print their figures as JSON. HTTP is wrk's (measuring.py) where rates are told.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import numpy as np

PAUSE_S = 0.0015  # what the model server takes for a lone small request, or hardly less
PREDICT = "/tensorflow.serving.PredictionService/Predict"

Figures = dict[str, float]


def summary(latencies: Sequence[float], seconds: float, rows: int = 1) -> Figures:
    """`latencies` in seconds, of calls of so many rows."""
    latencies = sorted(latencies)
    return {
        "requests": len(latencies),
        "seconds": seconds,
        "per_second": len(latencies) * rows / seconds,
        "p50_ms": latencies[len(latencies) // 2] * 1e3,
        "p99_ms": latencies[int(len(latencies) * 0.99)] * 1e3,
        "errors": 0,
    }


async def call(address: str, request: bytes, clients: int, seconds: float) -> Figures:
    """So many clients, each with its next call as soon as the last is answered."""
    # A few connections: one HTTP/2 connection is one lane, and 64 are 64 pollers.
    channels = [
        grpc.aio.insecure_channel(address, [("lane", lane)]) for lane in range(min(clients, 4))
    ]
    calls = [channel.unary_unary(PREDICT) for channel in channels]
    await asyncio.gather(*(calls[client % len(calls)](request) for client in range(clients)))
    latencies: list[float] = []
    started, cpu = time.perf_counter(), time.process_time()

    async def keep_asking(ask: Any) -> None:
        while time.perf_counter() - started < seconds:
            before = time.perf_counter()
            await ask(request)
            latencies.append(time.perf_counter() - before)

    await asyncio.gather(*(keep_asking(calls[client % len(calls)]) for client in range(clients)))
    client_us = (time.process_time() - cpu) / len(latencies) * 1e6
    figures = summary(latencies, time.perf_counter() - started) | {"client_us": client_us}
    return figures | {"requests": len(latencies) + clients}


async def post(
    url: str, body: bytes, headers: Sequence[str], connections: int, seconds: float
) -> Figures:
    """So many connections, each with its next POST as soon as the last is answered; `errors` are
    answers other than 200."""
    parts = urlsplit(url)
    lines = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}", *headers]
    request = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body
    latencies: list[float] = []
    errors, started = 0, time.perf_counter()

    async def keep_asking() -> None:
        nonlocal errors
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        while time.perf_counter() - started < seconds:
            before = time.perf_counter()
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.partition(b"content-length:")[2].split()[0]))
            errors += not head.startswith(b"http/1.1 200 ")
            latencies.append(time.perf_counter() - before)
        writer.close()

    await asyncio.gather(*(keep_asking() for _ in range(connections)))
    return summary(latencies, time.perf_counter() - started) | {"errors": errors}


def with_pauses(url: str, body: bytes, seconds: float) -> Figures:
    """One POST of JSON after the other, and a pause after each: what a server costs whose code has
    left the processor's caches in the meantime, as a gateway's does while the model works."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port)
    latencies = []
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        before = time.perf_counter()
        connection.request("POST", parts.path, body, {"Content-Type": "application/json"})
        connection.getresponse().read()
        latencies.append(time.perf_counter() - before)
        time.sleep(PAUSE_S)
    return summary(latencies, time.perf_counter() - started)


def alone(body: bytes, seconds: float) -> Figures:
    """The gateway's own reading of a small picture as JSON, and writing of ten labels."""
    from service.gateway.decode.tfs_json import decode_predict
    from service.gateway.encode.tfs_json import encode_predict
    from service.gateway.signatures import Signatures, validate
    from sluice.wire.protos.tensorflow_pb2 import SignatureDef, TensorInfo
    from sluice.wire.tensors import encode_shape

    image = TensorInfo(dtype=1, tensor_shape=encode_shape([-1, 28, 28, 1]))
    label = TensorInfo(dtype=1, tensor_shape=encode_shape([-1, 10]))
    served = SignatureDef(inputs={"image": image}, outputs={"label": label})
    signatures = Signatures({"serving_default": served})
    outputs = {"label": np.random.default_rng(7).random((1, 10), np.float32)}

    def work() -> None:
        query = decode_predict(body, signatures)
        validate(query.signature, query.inputs)
        encode_predict(outputs, query)

    return _repeated(work, seconds, 1)


def run(saved_model: Path, seconds: float, rows: int, picture: bytes | None) -> Figures:
    """The model in this process in a loop, `rows` images at a time: files to decode, or pixels."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    from tensorflow.core.protobuf.config_pb2 import ConfigProto

    from service.modelserver.servable import Run, load_servable

    servable = load_servable(saved_model, ["serve"], ConfigProto())
    signature = servable.signatures["encoded" if picture else "serving_default"]
    (given,) = signature.inputs.values()
    shape = [dim.size for dim in given.tensor_shape.dim][1:]
    images: Any = np.random.default_rng(7).random((rows, *shape), np.float32)
    if picture:
        images = np.array([picture] * rows, object)
    wanted = Run({given.name: images}, tuple(info.name for info in signature.outputs.values()))
    return _repeated(lambda: servable.run(wanted), seconds, rows)


def _repeated(work: Callable[[], object], seconds: float, rows: int) -> Figures:
    work()
    latencies = []
    started, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - started < seconds:
        before = time.perf_counter()
        work()
        latencies.append(time.perf_counter() - before)
    cpu_us = (time.process_time() - cpu) / (len(latencies) * rows) * 1e6
    return summary(latencies, time.perf_counter() - started, rows) | {"cpu_us": cpu_us}


def main(role: str, *arguments: str) -> None:
    if role == "grpc":
        address, file, clients, seconds = arguments
        figures = asyncio.run(call(address, Path(file).read_bytes(), int(clients), float(seconds)))
    elif role == "http":
        url, file, connections, seconds, *headers = arguments
        body = Path(file).read_bytes()
        figures = asyncio.run(post(url, body, headers, int(connections), float(seconds)))
    elif role == "pauses":
        url, file, seconds = arguments
        figures = with_pauses(url, Path(file).read_bytes(), float(seconds))
    elif role == "alone":
        file, seconds = arguments
        figures = alone(Path(file).read_bytes(), float(seconds))
    else:
        saved_model, text, rows, *files = arguments
        picture = Path(files[0]).read_bytes() if files else None
        figures = run(Path(saved_model), float(text), int(rows), picture)
    print(json.dumps(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])

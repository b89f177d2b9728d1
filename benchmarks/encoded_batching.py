"""What `batch_encoded` is worth: the network behind the decoding of `encoded`, joined in the graph.

    python benchmarks/encoded_batching.py [--rounds 5] [--seconds 3] [--clients 32]

Exports of one model are asked in turn, straight at the embedded model server by gRPC and through a
gateway by HTTP, one file a call and several, of several kinds and sizes: as they are, by a server
with a tuned `--enable_batching`, and joined in the graph. Every eleventh call has a file that is
cut short; `lost` is how many of the other calls failed. Prints Markdown: what was answered by the
rate of the flag's, the median of all rounds and its quartiles, and CPU by both servers.
"""

import argparse
import asyncio
import base64
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import grpc
import numpy as np
from loads import PREDICT, Figures, summary
from measuring import WARM_UP_S, cpu_s, free_port, running, until_answered, until_serving
from PIL import Image

from sluice.wire.protos.serving_pb2 import PredictRequest
from sluice.wire.tensors import encode_tensor

ROWS = 32  # that are joined at most
PLAIN, FLAG = "as it is", "--enable_batching"
SIDES = {"small": 32, "large": 96}  # in pixels, of what the models take
EACH = 40  # calls that are sent again and again, and of these...
BAD = 11  # ...every eleventh has a file that is cut short
JSON = {"Content-Type": "application/json"}
TUNED = (
    f"max_batch_size {{ value: {ROWS} }} batch_timeout_micros {{ value: 0 }} "
    "max_enqueued_batches { value: 1000 } num_batch_threads { value: 2 }"
)


class Contender(NamedTuple):
    """One of the exports, and whether the server that is asked for it joins calls itself."""

    name: str
    export: str
    flag: bool = False


class Asked(NamedTuple):
    """Who is asked what: `rows` files a call, of the model for pictures of a size."""

    size: str
    rows: int
    clients: int
    by_http: bool


def main() -> None:
    options = _options()
    if options.load:
        print(json.dumps(asyncio.run(_load(*options.load))))
        return
    threads = [int(each) for each in options.threads.split(",")]
    if options.export:
        export(options.export, threads)
        return
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        home = Path(folder)
        command = [sys.executable, __file__, "--export", folder, "--threads", options.threads]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        contenders = [Contender(PLAIN, "plain"), Contender(FLAG, "plain", flag=True)]
        contenders += [Contender(f"in the graph, {each} threads", f"t{each}") for each in threads]
        servers = {flag: Servers(home, stack, flag=flag) for flag in (False, True)}
        for size in options.models.split(","):
            for rows in map(int, options.rows.split(",")):
                write_calls(home / f"{size}-{rows}", rows)
                for by_http in (False, True):
                    for clients in dict.fromkeys((options.clients, 1)):
                        asked = Asked(size, rows, clients, by_http)
                        found = in_turn(home, contenders, servers, asked, options)
                        print("\n".join(table(asked, found)), flush=True)


def export(home: Path, threads: Sequence[int]) -> None:
    """Write each model as it is, and joined in the graph by so many threads."""
    import keras

    import models
    from training.data.heads import Classes
    from training.publishing import batching, saved_model

    heads = {"label": Classes(tuple("0123456789"))}
    for size, side in SIDES.items():
        keras.utils.set_random_seed(1)
        model = (
            models.build("cnn_functional", (side, side, 3), 10)
            if size == "small"
            else models.build("vgg16", (side, side, 3), 10, width=8, units=256)
        )
        for name, rows, each in [("plain", 0, 0), *((f"t{each}", ROWS, each) for each in threads)]:
            batching._THREADS = each
            version = home / "models" / f"{size}-{name}" / "1"
            version.mkdir(parents=True)
            saved_model.write(model, heads, version, batch_encoded=rows)


def write_calls(directory: Path, rows: int) -> None:
    """Calls by number, as HTTP bodies of JSON; one that has a file that is cut short is `bad`."""
    directory.mkdir()
    for number in range(EACH):
        files = [picture(number * rows + row) for row in range(rows)]
        bad = number % BAD == 0
        if bad:
            files[0] = files[0][: len(files[0]) // 2]
        instances = [{"b64": base64.b64encode(file).decode()} for file in files]
        body = {"signature_name": "encoded", "instances": instances}
        (directory / f"{number:02}.{'bad' if bad else 'good'}").write_text(json.dumps(body))


def picture(number: int) -> bytes:
    """A JPEG or PNG file of 40 to 240 pixels a side, with what a photograph has in it."""
    random = np.random.default_rng(number)
    width, height = (int(side) for side in random.integers(40, 240, 2))
    coarse = Image.fromarray(random.integers(0, 255, (8, 8, 3), np.uint8))
    buffer = io.BytesIO()
    coarse.resize((width, height), Image.Resampling.BICUBIC).save(
        buffer, "PNG" if number % 4 == 0 else "JPEG"
    )
    return buffer.getvalue()


class Servers:
    """A model server and a gateway before it."""

    def __init__(self, home: Path, stack: ExitStack, *, flag: bool) -> None:
        grpc_port, http, self.log = free_port(), free_port(), home / f"log-{flag}"
        self.grpc, self.http = f"127.0.0.1:{grpc_port}", f"http://127.0.0.1:{http}"
        command = [sys.executable, "-m", "service.modelserver", f"--port={grpc_port}"]
        command += ["--grpc_max_threads=64", f"--model_repository={home / 'models'}"]
        if flag:
            (home / "batching.config").write_text(TUNED)
            command += ["--enable_batching", f"--batching_parameters_file={home}/batching.config"]
        self.twin = stack.enter_context(running(command, {}, self.log))
        names = [each.name for each in (home / "models").iterdir()]
        until_serving(self.twin, self.grpc, names, self.log)
        settings = {"SLUICE_MODEL_SERVER": self.grpc, "SLUICE_ADMIN_PORT": "0"}
        settings |= {"SLUICE_HTTP_HOST": "127.0.0.1", "SLUICE_HTTP_PORT": str(http)}
        settings |= {"SLUICE_ACCESS_LOG": "off"}
        settings |= {"SLUICE_MAX_WAIT_S": "30"}  # a refusal is no answer to be measured
        command = [sys.executable, "-m", "service.cli", "gateway"]
        self.gateway = stack.enter_context(running(command, settings, self.log))


def in_turn(
    home: Path,
    contenders: Sequence[Contender],
    servers: dict[bool, Servers],
    asked: Asked,
    options: argparse.Namespace,
) -> dict[str, list[Figures]]:
    """By contender the figures of each round; `cpu_ms` is of both servers, for each call."""
    calls = home / f"{asked.size}-{asked.rows}"

    def measure(contender: Contender, seconds: float) -> Figures:
        server, model = servers[contender.flag], f"{asked.size}-{contender.export}"
        address = f"{server.http}/v1/models/{model}:predict" if asked.by_http else server.grpc
        if asked.by_http:
            until_answered(server.gateway, address, calls / "01.good", JSON, server.log)
        both = [server.twin, server.gateway]
        before = cpu_s(both)
        load = _in_a_process(address, model, calls, asked.clients, seconds)
        return load | {"cpu_ms": (cpu_s(both) - before) / max(load["requests"], 1) * 1e3}

    rounds: dict[str, list[Figures]] = {each.name: [] for each in contenders}
    for each in contenders:
        measure(each, WARM_UP_S)
    for number in range(options.rounds):
        for each in contenders if number % 2 else contenders[::-1]:
            rounds[each.name].append(measure(each, options.seconds))
    return rounds


def table(asked: Asked, found: dict[str, list[Figures]]) -> Iterator[str]:
    side = SIDES[asked.size]
    yield f"\n{side}×{side}×3, {asked.rows} files a call, {asked.clients} clients, " + (
        "HTTP at the gateway\n" if asked.by_http else "gRPC at the model server\n"
    )
    yield "| | images/s | of the flag's | quartiles | p50 ms | CPU ms a call | lost |"
    yield "|---|---|---|---|---|---|---|"
    for name, rounds in found.items():
        ratios = [
            one["per_second"] / its["per_second"]
            for one, its in zip(rounds, found[FLAG], strict=True)
        ]
        low, middle, high = statistics.quantiles(ratios, n=4)
        rate, p50, cpu = (
            statistics.median(each[figure] for each in rounds)
            for figure in ("per_second", "p50_ms", "cpu_ms")
        )
        lost, good = (sum(int(each[count]) for each in rounds) for count in ("lost", "good"))
        yield (
            f"| {name} | {rate * asked.rows:.0f} | {middle:.2f} | {low:.2f} to {high:.2f} "
            f"| {p50:.1f} | {cpu:.2f} | {lost} of {good:,} |"
        )


def _in_a_process(*load: object) -> Figures:
    command = [sys.executable, __file__, "--load", *map(str, load)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    figures: Figures = json.loads(done.stdout)
    return figures


async def _load(address: str, model: str, calls: str, clients: str, seconds: str) -> Figures:
    """So many clients, each with its next call as soon as the last is answered, all calls in turn.
    Rates and times are of good ones: `lost` of these `good` failed."""
    files = sorted(Path(calls).iterdir())
    by_http = address.startswith("http:")
    bodies = [file.read_bytes() if by_http else _as_predict(file, model) for file in files]
    are_good = [file.suffix == ".good" for file in files]
    latencies: list[float] = []
    lost = turn = 0
    started, until = time.perf_counter(), float(seconds)

    async def keep_asking(ask: Callable[[bytes], Awaitable[bool]]) -> None:
        nonlocal lost, turn
        while time.perf_counter() - started < until:
            place, turn = turn % len(bodies), turn + 1
            before = time.perf_counter()
            answered = await ask(bodies[place])
            if are_good[place]:
                latencies.append(time.perf_counter() - before)
                lost += not answered

    asking = [await _connected(address, lane % 4) for lane in range(int(clients))]
    await asyncio.gather(*map(keep_asking, asking))
    counts = {"requests": turn, "lost": lost, "good": len(latencies)}
    return summary(latencies, time.perf_counter() - started) | counts


async def _connected(address: str, lane: int) -> Callable[[bytes], Awaitable[bool]]:
    """What sends a call, and says whether it was answered."""
    if not address.startswith("http:"):
        call = grpc.aio.insecure_channel(address, [("lane", lane)]).unary_unary(PREDICT)

        async def ask(request: bytes) -> bool:
            with suppress(grpc.RpcError):
                await call(request)
                return True
            return False

        return ask
    parts = urlsplit(address)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    line = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: "

    async def post(body: bytes) -> bool:
        writer.write(f"{line}{len(body)}\r\n\r\n".encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.partition(b"content-length:")[2].split()[0]))
        return head.startswith(b"http/1.1 200 ")

    return post


def _as_predict(file: Path, model: str) -> bytes:
    body: Any = json.loads(file.read_text())
    files = [base64.b64decode(each["b64"]) for each in body["instances"]]
    request = PredictRequest(inputs={"image": encode_tensor(np.array(files, object))})
    request.model_spec.name, request.model_spec.signature_name = model, "encoded"
    return request.SerializeToString()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="2 at the least")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each contender in a round")
    parser.add_argument("--clients", type=int, default=32, help="at once; one alone besides")
    parser.add_argument("--rows", default="1,4", help="files a call")
    parser.add_argument("--models", default=",".join(SIDES), help="of these")
    parser.add_argument("--threads", default="0,1,2", help="that run joined batches in the graph")
    parser.add_argument("--export", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--load", nargs=5, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()

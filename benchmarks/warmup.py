"""What the first second of a version costs, with captured requests in its warm-up file and without.

    python benchmarks/warmup.py [--swaps 20] [--clients 4] [--docs]

A gateway that captures all that it answers, before the twin, under load: pixels as JSON, one and
four rows at a time, and a JPEG. After some seconds the captures become a warm-up file. Then the
model is replaced over and over, in turn by a version that has the file and by one that has none;
both are otherwise the same. `steady` is the two seconds before a version is published; it loads
until the first request that the new version answers, with which the first second begins.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import date
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from cases import SHAPES, bodies, write_models
from clients import Clients, Request
from contenders import JSON_TYPE
from measuring import HERE, cores, free_port, running, until_answered, until_serving, write_docs

ROOT = HERE.parent
WORK = ROOT / ".work" / "bench"
MODEL, PATH = "small", "/v1/models/small:predict"
CAPTURED_S, STEADY_S, FIRST_S = 3.0, 2.0, 1.0
PAUSE_S = 0.01  # of a client behind each answer: what is measured is not a queue
WAIT_S = 60.0
WITH, WITHOUT = "with the file", "without"


class Swap(NamedTuple):
    steady: list[float]  # seconds of each request
    loading: list[float]
    first: list[float]


def main() -> None:
    options = _options()
    write_models(WORK / "models")
    with tempfile.TemporaryDirectory(dir=WORK) as directory, ExitStack() as stack:
        home = Path(directory)
        port = _start(home, stack)
        with Clients(port, PATH, options.clients, _asked_by, _due, patient=True) as clients:
            time.sleep(CAPTURED_S)
            _prepare(home)
            swaps: dict[str, list[Swap]] = {WITH: [], WITHOUT: []}
            for number in range(2 * options.swaps):
                kind = (WITH, WITHOUT)[number % 2]
                swaps[kind].append(_swap(home, kind, number + 2, clients))
                print(f"{kind}: {_ratio(swaps[kind][-1]):.2f}", file=sys.stderr, flush=True)
    text = report(swaps)
    print(text)
    if options.docs:
        write_docs("benchmarks.md", "make bench-warmup", text)


def report(swaps: dict[str, list[Swap]]) -> str:
    """A table in Markdown."""
    lines = [
        f"{date.today()}, {cores()} CPUs, {len(swaps[WITH])} swaps each:",
        "",
        "| version | steady p99 ms | p99 ms while it loads | first second p99 ms |"
        " of the steady | worst swap | slowest request ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, made in swaps.items():
        steady, loading, first = (
            statistics.median(_p99(times) for times in side) * 1e3
            for side in zip(*made, strict=True)
        )
        ratios = [_ratio(each) for each in made]
        slowest = max(max(each.first) for each in made) * 1e3
        lines.append(
            f"| {kind} | {steady:.1f} | {loading:.1f} | {first:.1f} | "
            f"{statistics.median(ratios):.2f} | {max(ratios):.2f} | {slowest:.0f} |"
        )
    return "\n".join(lines)


def _asked_by(client: int) -> Iterator[Request]:
    """The kinds in turn, each client with another first."""
    requests = _requests()
    return islice(cycle(requests), client % len(requests), None)


def _due(_: float) -> float:
    return time.monotonic() + PAUSE_S


def _between(clients: Clients, begin: float, end: float) -> list[float]:
    """How long each request took that was begun in that time."""
    if clients.failures:
        raise SystemExit(clients.failures[0])
    return [each.seconds for each in clients.asked if begin <= each.begun < end]


def _requests() -> list[Request]:
    rows = np.random.default_rng(7).random((4, *SHAPES[MODEL])).round(5)
    several = json.dumps({"instances": rows.tolist()}).encode()
    made = bodies()
    return [
        (made["small.json"], JSON_TYPE),
        (several, JSON_TYPE),
        (made["jpeg"], {"Content-Type": "image/jpeg"}),
    ]


def _start(home: Path, stack: ExitStack) -> int:
    """The port of a gateway that captures, before the twin that serves version 1."""
    shutil.copytree(WORK / "models" / MODEL / "1", home / "repository" / MODEL / "1")
    http, grpc = free_port(), free_port()
    command = [sys.executable, "-m", "service.modelserver", f"--port={grpc}"]
    command += [f"--model_repository={home}/repository", "--file_system_poll_wait_seconds=0.2"]
    log = home / "log"
    twin = stack.enter_context(running(command, {}, log))
    until_serving(twin, f"127.0.0.1:{grpc}", [MODEL], log)
    settings = {
        "MODEL_SERVER": f"127.0.0.1:{grpc}",
        "HTTP_HOST": "127.0.0.1",
        "HTTP_PORT": str(http),
        "ADMIN_PORT": "0",
        "CAPTURE_DIR": f"{home}/captures",
        "CAPTURE_SHARE": "1",
        "ACCESS_LOG": "off",
    }
    environment = {f"SLUICE_{name}": value for name, value in settings.items()}
    gateway = stack.enter_context(
        running([sys.executable, "-m", "service.cli", "gateway"], environment, log)
    )
    for body, headers in _requests():
        (home / "body").write_bytes(body)
        until_answered(gateway, f"http://127.0.0.1:{http}{PATH}", home / "body", headers, log)
    return http


def _prepare(home: Path) -> None:
    """The version once with the file and once without, where no server looks."""
    for kind in (WITH, WITHOUT):
        shutil.copytree(WORK / "models" / MODEL / "1", home / kind / MODEL / "1")
    command = [sys.executable, "-m", "service.cli", "capture", "warmup", str(home / "captures")]
    command += [MODEL, f"--model-repository={home / WITH}"]
    subprocess.run(command, check=True, stdout=sys.stderr)


def _swap(home: Path, kind: str, version: int, clients: Clients) -> Swap:
    time.sleep(STEADY_S)
    published = time.monotonic()
    steady = _between(clients, published - STEADY_S, published)
    repository = home / "repository" / MODEL
    shutil.copytree(home / kind / MODEL / "1", repository / f"{version}.tmp")
    (repository / f"{version}.tmp").rename(repository / str(version))
    deadline = time.monotonic() + WAIT_S
    while not any(each.version == version for each in list(clients.asked)):
        if time.monotonic() > deadline:
            raise SystemExit(f"version {version} has not been served")
        time.sleep(0.05)
    time.sleep(FIRST_S + 1)
    served = min(each.begun for each in list(clients.asked) if each.version == version)
    shutil.rmtree(repository / str(version - 1))
    loading = _between(clients, published, served)
    first = _between(clients, served, served + FIRST_S)
    clients.asked.clear()
    return Swap(steady, loading, first)


def _ratio(swap: Swap) -> float:
    return _p99(swap.first) / _p99(swap.steady)


def _p99(seconds: Sequence[float]) -> float:
    return sorted(seconds)[int(len(seconds) * 0.99)]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--swaps", type=int, default=20, help="of each kind")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--docs", action="store_true", help="write docs/benchmarks.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""What keys, limits, the access log and captures cost the gateway, beside one with none of them.

    python benchmarks/access.py [--starts 4] [--rounds 10] [--seconds 1] [--connections 32] [--docs]

A gateway of each kind before one embedded model server, all of them running. They are asked one
after the other, each for some seconds, for a machine is fast and slow by turns, and in another
order each round, for whoever was asked a moment ago is quicker. A ratio is the median of the
rounds, of each round's figure over the bare gateway's in that round. Two processes of the same
program differ too, for as long as they live: all are started anew some times, and a second bare
gateway says how much of all that is left. The request is a small picture as JSON: the dearer a
request, the smaller the share of what is measured.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from cases import SMALL, model_of, write_bodies, write_models
from contenders import JSON_TYPE
from measuring import (
    HERE,
    Figures,
    cores,
    cpu_s,
    free_port,
    in_a_process,
    running,
    until_answered,
    until_serving,
    write_docs,
)

from service.gateway.access.keys import digest_of, new_key

ROOT = HERE.parent
WORK = ROOT / ".work" / "bench"
BARE = "none of it"
ONE = "requests_per_s = 1e9\n"
ALL = (
    f"{ONE}burst = 1e9\nrows_per_s = 1e9\nbytes_per_s = 1e12\nrequests_per_day = 1e9\nplaces = 1e3"
)
LOG = {"ACCESS_LOG": "text"}
WARM_UP_S = 1.0


class Kind(NamedTuple):
    """What a gateway is set to, and what its callers' key is held to; without limits they show
    none."""

    settings: Mapping[str, str] = {}
    limits: str | None = None


KINDS = {
    BARE: Kind(),
    "none of it, again": Kind(),
    "the log": Kind(LOG),
    "a key": Kind({}, ""),
    "a key, a rate and the log": Kind(LOG, ONE),
    "a key, all six limits and the log": Kind(LOG, ALL),
    "captures of all requests": Kind({"CAPTURE_SHARE": "1"}),
}


class Gateway(NamedTuple):
    process: psutil.Process
    url: str
    headers: Mapping[str, str]

    def measure(self, connections: int, seconds: float) -> Figures:
        """Of its answers; `cpu_us` is its own for each."""
        given = [f"{name}: {value}" for name, value in self.headers.items()]
        body = WORK / "bodies" / "small.json"
        before = cpu_s([self.process])
        load = in_a_process("http", self.url, body, connections, seconds, *given)
        if load["errors"]:
            raise SystemExit(f"{load['errors']:.0f} of {load['requests']:.0f} were refused")
        return load | {"cpu_us": (cpu_s([self.process]) - before) / load["requests"] * 1e6}


def main() -> None:
    options = _options()
    write_models(WORK / "models")
    write_bodies(WORK / "bodies")
    rounds: dict[str, list[Figures]] = {name: [] for name in KINDS}
    for _ in range(options.starts):
        with tempfile.TemporaryDirectory(dir=WORK) as directory, ExitStack() as stack:
            _measure(_start(Path(directory), stack), rounds, options)
    text = report(rounds, options.connections)
    print(text)
    if options.docs:
        write_docs("benchmarks.md", "make bench-access", text)


def _measure(
    gateways: Mapping[str, Gateway],
    rounds: Mapping[str, list[Figures]],
    options: argparse.Namespace,
) -> None:
    """Add the figures of each of these gateways' rounds."""
    for gateway in gateways.values():
        gateway.measure(options.connections, WARM_UP_S)
    order = np.random.default_rng(len(rounds[BARE]))
    for _ in range(options.rounds):
        for name in map(str, order.permutation([*gateways])):
            figures = gateways[name].measure(options.connections, options.seconds)
            rounds[name].append(figures)
            print(f"{name}: {figures['cpu_us']:.1f} µs", file=sys.stderr, flush=True)


def report(rounds: Mapping[str, list[Figures]], connections: int) -> str:
    """A table in Markdown; `rounds` has the figures of each round by kind."""
    lines = [
        f"{date.today()}, {cores()} CPUs, {connections} connections, {len(rounds[BARE])} rounds:",
        "",
        "| gateway with | CPU µs | of the bare one's | quartiles | p50 ms | of the bare one's |",
        "|---|---|---|---|---|---|",
    ]
    for name, figures in rounds.items():
        cpu, p50 = (_over(figures, rounds[BARE], figure) for figure in ("cpu_us", "p50_ms"))
        low, middle, high = statistics.quantiles(cpu, n=4)
        lines.append(
            f"| {name} | {statistics.median(each['cpu_us'] for each in figures):.0f} | "
            f"{middle:.2f} | {low:.2f} to {high:.2f} | "
            f"{statistics.median(each['p50_ms'] for each in figures):.2f} | "
            f"{statistics.median(p50):.2f} |"
        )
    return "\n".join(lines)


def _over(figures: list[Figures], bare: list[Figures], figure: str) -> list[float]:
    return [one[figure] / other[figure] for one, other in zip(figures, bare, strict=True)]


def _start(home: Path, stack: ExitStack) -> dict[str, Gateway]:
    grpc, model, log = free_port(), model_of(SMALL), home / "log"
    command = [sys.executable, "-m", "service.modelserver", f"--port={grpc}"]
    command += ["--grpc_max_threads=64", f"--model_repository={WORK / 'models'}"]
    twin = stack.enter_context(running(command, {}, log))
    until_serving(twin, f"127.0.0.1:{grpc}", [model], log)
    gateways = {}
    for number, (name, kind) in enumerate(KINDS.items()):
        port, headers = free_port(), dict(JSON_TYPE)
        settings = {
            "MODEL_SERVER": f"127.0.0.1:{grpc}",
            "HTTP_HOST": "127.0.0.1",
            "HTTP_PORT": str(port),
            "ADMIN_PORT": "0",
            "ACCESS_LOG": "off",
            "MAX_WAIT_S": "30",  # a refusal is no answer to be measured
            **kind.settings,
        }
        if kind.limits is not None:
            key, file = new_key("bench"), home / f"{number}.toml"
            table = f'[keys.bench]\nsha256 = "{digest_of(key)}"\nmodels = ["{model}"]\n'
            file.write_text(table + kind.limits)
            settings["ACCESS_FILE"], headers["X-API-Key"] = str(file), key
        if "CAPTURE_SHARE" in kind.settings:
            settings["CAPTURE_DIR"] = str(home / f"{number}.captures")
        environment = {f"SLUICE_{setting}": value for setting, value in settings.items()}
        command = [sys.executable, "-m", "service.cli", "gateway"]
        process = stack.enter_context(running(command, environment, log))
        url = f"http://127.0.0.1:{port}/v1/models/{model}:predict"
        until_answered(process, url, WORK / "bodies" / "small.json", headers, log)
        gateways[name] = Gateway(process, url, headers)
    return gateways


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--starts", type=int, default=4, help="of all the gateways")
    parser.add_argument("--rounds", type=int, default=10, help="of each start, 2 at the least")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each kind in a round")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--docs", action="store_true", help="write docs/benchmarks.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()

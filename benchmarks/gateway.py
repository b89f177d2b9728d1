"""What a prediction costs through the gateway, beside hello worlds, TensorFlow alone and others.

    python benchmarks/gateway.py [--quick] [--peers] [--only NAMES] [--docs]
                                 [--model-server HOST:PORT] [--peer-rest HOST:PORT[,HOST:PORT]]
    python benchmarks/gateway.py --export DIRECTORY

Everybody is asked in turn, one started after another, so that no idle server costs another
anything; a round asks them all, and the figures are the medians of three rounds, for a machine is
fast and slow by turns. Servers and clients share its cores. What is asked is in cases.py, who is
in contenders.py, the targets are in verdicts.py. A TensorFlow Serving that is to be compared serves
the two models that --export writes.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import psutil
from cases import (
    ALONE,
    CONNECTIONS,
    DIRECT,
    GRPC,
    JPEG,
    JSON,
    PAUSED,
    SMALL,
    model_of,
    write_bodies,
    write_models,
)
from contenders import MODEL_SERVER, PEERS, Contender, contenders
from measuring import (
    HERE,
    WARM_UP_S,
    CannotStart,
    Figures,
    cpu_s,
    free_port,
    idle_cpu,
    in_a_process,
    largest_mb,
    listening_on,
    load_http,
    memory_mb,
    require_wrk,
    running,
    until_answered,
    until_serving,
)
from report import Results, print_results, write_results
from verdicts import IN_PROCESS, verdicts

ROOT = HERE.parent
WORK = ROOT / ".work" / "bench"
MODELS, BODIES, LOGS, PEER_ENVIRONMENTS = (
    WORK / name for name in ("models", "bodies", "logs", "peers")
)
ROWS = {  # kind: its rows at a time
    SMALL: (1, 8, 32),
    JSON: (1, 8, 32),
    JPEG: (8,),
}

Server = tuple[str, psutil.Process]  # its role


class Running:
    """A contender that has been started: where it is asked, and its processes by role."""

    def __init__(self, contender: Contender, models: tuple[str, ...]) -> None:
        self.contender, self.models = contender, models
        ports = {name: str(free_port()) for name in ("http", "grpc", "front_grpc", "admin")}
        self._names = ports | {
            "model": models[0],
            "models": str(MODELS),
            "environments": str(PEER_ENVIRONMENTS),
            "peers": str(HERE / "peers"),
        }
        self.servers: list[Server] = []

    def named(self, text: str, **names: str) -> str:
        for name, value in (self._names | names).items():
            text = text.replace(f"{{{name}}}", value)
        return text

    def start(self, stack: ExitStack) -> Figures:
        """Start it; seconds from each process's start to its first answer. Raises CannotStart."""
        seconds: Figures = {}
        for process in self.contender.processes:
            log = LOGS / f"{self.contender.name}, {process.role}.log".replace(" ", "-")
            command = [self.named(each) for each in process.command]
            environment = {name: self.named(value) for name, value in process.environment.items()}
            if not Path(command[0]).exists():
                raise CannotStart("it is not installed here: make bench-peers installs it")
            began = time.monotonic()
            started = stack.enter_context(running(command, environment, log))
            self.servers.append((process.role, started))
            if process.role == MODEL_SERVER:
                until_serving(started, self.named("127.0.0.1:{grpc}"), self.models, log)
            else:
                kind = SMALL if "small" in self.models else JSON
                until_answered(started, *self._post(kind), log)
            seconds[process.role] = time.monotonic() - began
        for role, address in (
            (MODEL_SERVER, self.contender.model_server),
            ("server", "" if self.contender.processes else self.contender.address),
        ):
            if address and (found := listening_on(address)):
                self.servers.append((role, found))
        return seconds

    def measure(self, kind: str, connections: int, seconds: float) -> Figures:
        before = {role: cpu_s([each]) for role, each in self.servers}
        if kind in (GRPC, DIRECT):
            request = self.contender.requests[kind]
            port = self.named(request.path)
            address = port if ":" in port else f"127.0.0.1:{port}"
            load = in_a_process("grpc", address, BODIES / request.body, connections, seconds)
        elif kind == PAUSED:
            url, body, _ = self._post(kind)
            load = in_a_process("pauses", url, body, seconds)
        else:
            url, body, headers = self._post(kind)
            load_http(url, body, headers, connections, WARM_UP_S)
            before = {role: cpu_s([each]) for role, each in self.servers}
            load = load_http(url, body, headers, connections, seconds)
        for role, each in self.servers:
            load[f"{role} µs"] = (cpu_s([each]) - before[role]) / max(load["requests"], 1) * 1e6
        return load

    def _post(self, kind: str) -> tuple[str, Path, Mapping[str, str]]:
        request = self.contender.requests[kind]
        path = self.named(request.path, model=model_of(kind))
        url = f"http://{self.named(self.contender.address)}{path}"
        return url, BODIES / request.body, request.headers


def main() -> None:
    options = _options()
    if options.export:
        write_models(options.export)
        return
    require_wrk()
    LOGS.mkdir(parents=True, exist_ok=True)
    write_models(MODELS)
    write_bodies(BODIES)
    if options.peers:
        install_peers()
    results = Results()
    everybody = contenders(options.model_server, options.peer_rest, options.peers)
    wanted = [each for each in everybody if not options.only or each.name in options.only]
    for number in range(options.rounds):
        _say(f"round {number + 1} of {options.rounds}")
        if not options.only or IN_PROCESS in options.only:
            _in_process(results, options)
        for contender in wanted:
            for models in contender.groups:
                _compete(contender, models, results, options)
                _save(results)
    judged = verdicts(results)
    print_results(results, judged)
    if options.docs:
        write_results(results, judged)


def _save(results: Results) -> None:
    """What has been measured so far: a run takes long."""
    document = results.document(verdicts(results))
    (WORK / "results.json").write_text(json.dumps(document, indent=1))


def _in_process(results: Results, options: argparse.Namespace) -> None:
    for kind, many in ROWS.items():
        picture = [BODIES / "jpeg"] if kind == JPEG else []
        for rows in many:
            path = MODELS / model_of(kind) / "1"
            figures = in_a_process("tensorflow", path, options.seconds, rows, *picture)
            results.add(IN_PROCESS, kind, rows, figures)
    results.add(IN_PROCESS, ALONE, 1, in_a_process("alone", BODIES / "small.json", options.seconds))


def _compete(
    contender: Contender, models: tuple[str, ...], results: Results, options: argparse.Namespace
) -> None:
    with ExitStack() as stack:
        server = Running(contender, models)
        try:
            starts = server.start(stack)
        except CannotStart as error:
            _say(f"{contender.name} cannot be started: {error}")
            results.failed[contender.name] = str(error)
            return
        if contender.processes:
            processes = [each for _, each in server.servers]
            idle = idle_cpu(processes, 2)
            for role, seconds in starts.items():
                mine = [each for its_role, each in server.servers if its_role == role]
                figures = {
                    "start_s": seconds,
                    "memory_mb": memory_mb(mine),
                    "largest_mb": largest_mb(mine),
                    "idle": idle,
                }
                results.add_process(contender.name, models, role, figures)
        for kind, connections in _cases(contender, models, options):
            _say(f"{contender.name}: {kind}, {connections}")
            try:
                figures = server.measure(kind, connections, options.seconds)
            except (subprocess.CalledProcessError, psutil.NoSuchProcess) as error:
                _say(f"    failed: {error}")
                continue
            results.add(contender.name, kind, connections, figures)


def _cases(
    contender: Contender, models: tuple[str, ...], options: argparse.Namespace
) -> Iterator[tuple[str, int]]:
    for kind in contender.requests:
        if model_of(kind) in models and (not options.kinds or kind in options.kinds):
            for connections in CONNECTIONS[kind]:
                if not options.connections or connections in options.connections:
                    yield kind, connections


def install_peers() -> None:
    """Each into an environment of its own, once; one that cannot be is reported when it starts."""
    for requirements in sorted((HERE / "peers").glob("*.txt")):
        home = PEER_ENVIRONMENTS / requirements.stem
        mark = home / ".installed"
        if mark.exists() and mark.read_text() == requirements.read_text():
            continue
        _say(f"installing {requirements.stem}")
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "-q", "-r", str(requirements)]
        with (LOGS / f"install-{requirements.stem}.log").open("w") as log:
            if subprocess.run(pip, stdout=log, stderr=log).returncode == 0:
                mark.write_text(requirements.read_text())


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _names(text: str) -> list[str]:
    return [each.strip() for each in text.split(";")]


def _numbers(text: str) -> list[int]:
    return [int(each) for each in text.split(",")]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one round of a second a case")
    parser.add_argument("--peers", action="store_true", help=f"also {', '.join(PEERS)}")
    parser.add_argument("--only", type=_names, metavar="NAMES", help="contenders; between ;")
    parser.add_argument("--kinds", type=_names, metavar="KINDS", help="of cases.py; between ;")
    parser.add_argument("--connections", type=_numbers, metavar="NUMBERS", help="between commas")
    parser.add_argument("--docs", action="store_true", help="write docs/benchmarks.md")
    parser.add_argument("--export", type=Path, metavar="DIRECTORY", help="write the models there")
    parser.add_argument("--model-server", default=os.environ.get("MODEL_SERVER", ""))
    parser.add_argument("--peer-rest", default=os.environ.get("PEER_REST", ""))
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float)
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.seconds = options.seconds or (1 if options.quick else 4)
    return options


if __name__ == "__main__":
    main()

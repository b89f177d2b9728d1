"""Which versions a guarded rollout stops, and how many users each reaches.

    python benchmarks/rollout.py [--versions 200] [--rate 200] [--docs]

A gateway and the twin, as `sluice up` starts them, under a steady load of handwritten digits, each
picture noised, so that none comes twice. One version after the other is rolled out by the
guard below: sabotaged ones of six kinds (rollout_versions.py), and sound ones, trained from other
seeds and held to the accuracy that publishing asks for. Counted are, as clients see it, the answers
that a version has given to them, and failures; and how many requests it was shadowed for.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from datetime import date
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

import numpy as np
from contenders import JSON_TYPE
from measuring import HERE, free_port, running, until_answered
from rollout_versions import MODEL, Versions, faults, pictures

from service.rollout.evidence import read_evidence
from service.rollout.following import follow
from service.rollout.guard import Guard, Step
from service.rollout.state import abort, hold, start
from sluice.wire.rollouts import Rollout, Stage

ROOT = HERE.parent
WORK = ROOT / ".work" / "bench"
GUARD = Guard(pairs=1000, patience=5000, seconds=0, steps=(Step(0.05, 20), Step(0.5, 100)))
CLIENTS = 4
NOISE = 4.0  # the deviation of a pixel, of 255: two good networks differ in no more for it
PATH = f"/v1/models/{MODEL}:predict"
TIMED = {**JSON_TYPE, "X-Sluice-Timing": "on"}  # the answer says which version gave it
LIVE, SOUND = 1, "sound"
MARKS = "<!-- make bench-rollout: begin -->", "<!-- make bench-rollout: end -->"


class Outcome(NamedTuple):
    """Of one version: `answered` requests of users, `shadowed` ones."""

    kind: str
    promoted: bool
    answered: int
    shadowed: int
    seconds: float
    why: str


class Clients:
    """As many requests a second as told, each a picture of its own. `answered` by version."""

    def __init__(self, port: int, rate: float) -> None:
        self.answered: dict[int, int] = {}
        self.failures: list[str] = []
        self._port, self._pause = port, CLIENTS / rate
        self._images = pictures()[1][0]
        self._stopped, self._lock = threading.Event(), threading.Lock()
        self._threads = [
            threading.Thread(target=self._ask, args=(seed,)) for seed in range(CLIENTS)
        ]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, seed: int) -> None:
        connection, chance = HTTPConnection("127.0.0.1", self._port), np.random.default_rng(seed)
        due = time.monotonic()
        while not self._stopped.wait(max(0.0, due - time.monotonic())):
            due = max(due + self._pause, time.monotonic() - 1)
            connection.request("POST", PATH, body_of(self._images, chance), TIMED)
            reply = connection.getresponse()
            answer, version = reply.read(), reply.headers.get("X-Sluice-Version", "0")
            with self._lock:
                self.answered[int(version)] = self.answered.get(int(version), 0) + 1
                if reply.status != 200:
                    self.failures.append(f"{reply.status} {answer[:200]!r}")


def body_of(images: np.ndarray, chance: np.random.Generator) -> bytes:
    """A request of one picture that nobody has seen."""
    image = images[chance.integers(len(images))].astype(np.float64)
    pixels = (image + chance.normal(0, NOISE, image.shape)).clip(0, 255).round().astype(int)
    return f'{{"instances":[{pixels.tolist()}]}}'.encode()


def main() -> None:
    options = _options()
    WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK) as directory, ExitStack() as stack:
        repository = Path(directory) / "repository"
        (repository / MODEL).mkdir(parents=True)
        versions = Versions(repository / MODEL)
        versions.write(LIVE, versions.sound)
        hold(repository / MODEL, LIVE)
        port = _start(repository, stack)
        slow = versions.products_in(_median_s(port))
        with Clients(port, options.rate) as clients:
            outcomes = _roll_out_all(repository / MODEL, versions, slow, clients, options.versions)
        text = report(outcomes, clients, options.rate)
    print(text)
    if options.docs:
        _write_docs(text)


def _roll_out_all(
    directory: Path, versions: Versions, slow: int, clients: Clients, count: int
) -> list[Outcome]:
    """As many sabotaged versions, of each kind as many, as sound ones, in turn."""
    outcomes, kinds, number = [], faults(versions, slow), LIVE
    names = [name for turn in range(count) for name in (list(kinds)[turn % len(kinds)], SOUND)]
    for name in names:
        number += 1
        chance = np.random.default_rng(number)
        weights = (
            versions.retrained(number) if name == SOUND else kinds[name](versions.sound, chance)
        )
        versions.write(number, weights)
        outcomes.append(_roll_out(directory, number, name, clients))
        print(f"{number}: {outcomes[-1]}", file=sys.stderr, flush=True)
    return outcomes


def _roll_out(directory: Path, number: int, kind: str, clients: Clients) -> Outcome:
    began = time.monotonic()
    rollout = start(directory, number, live=LIVE, why=kind)
    ended = follow(directory, GUARD, lambda *_: None)
    assert ended is not None
    shadowed = read_evidence(directory, rollout.id).pairs
    answered = clients.answered.get(number, 0)
    promoted = ended.stage is Stage.PROMOTED
    outcome = Outcome(
        kind, promoted, answered, shadowed, time.monotonic() - began, ended.history[-1].why
    )
    _put_back(directory, ended)
    return outcome


def _put_back(directory: Path, ended: Rollout) -> None:
    """The live version answers again, and the other is let go."""
    if ended.stage is Stage.PROMOTED:
        abort(directory)
    shutil.rmtree(directory / str(ended.next))


def report(outcomes: list[Outcome], clients: Clients, rate: float) -> str:
    """A table in Markdown."""
    asked = sum(clients.answered.values())
    lines = [
        f"{date.today()}, {os.cpu_count()} CPUs, {rate:g} requests/s, {asked:,} requests, "
        f"{len(clients.failures)} failed:",
        "",
        "| version | rolled out | stopped | shadowed, median | users reached, median | at most |",
        "|---|---|---|---|---|---|",
    ]
    for kind in dict.fromkeys(each.kind for each in outcomes):
        of = [each for each in outcomes if each.kind == kind]
        reached = [each.answered for each in of]
        lines.append(
            f"| {kind} | {len(of)} | {sum(not each.promoted for each in of)} | "
            f"{statistics.median(each.shadowed for each in of):.0f} | "
            f"{statistics.median(reached):.0f} | {max(reached)} |"
        )
    return "\n".join(lines)


def _start(repository: Path, stack: ExitStack) -> int:
    """The port of a gateway before the twin, which answers."""
    http, grpc, admin = free_port(), free_port(), free_port()
    command = [sys.executable, "-m", "service.cli", "up", f"--model-repository={repository}"]
    command += [f"--http-port={http}", f"--grpc-port={grpc}"]
    environment = {"SLUICE_ADMIN_PORT": str(admin)}
    log = repository.parent / "log"
    gateway = stack.enter_context(running(command, environment, log))
    body = repository.parent / "body"
    body.write_bytes(body_of(pictures()[1][0], np.random.default_rng(0)))
    until_answered(gateway, f"http://127.0.0.1:{http}{PATH}", body, JSON_TYPE, log)
    return http


def _median_s(port: int) -> float:
    """How long an answer takes, one after the other."""
    connection, chance = HTTPConnection("127.0.0.1", port), np.random.default_rng(1)
    images, seconds = pictures()[1][0], []
    for _ in range(200):
        began = time.monotonic()
        connection.request("POST", PATH, body_of(images, chance))
        connection.getresponse().read()
        seconds.append(time.monotonic() - began)
    return statistics.median(seconds)


def _write_docs(text: str) -> None:
    page = ROOT / "docs" / "operations.md"
    before, _, rest = page.read_text().partition(MARKS[0])
    behind = rest.partition(MARKS[1])[2]
    page.write_text(f"{before}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{behind}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--versions", type=int, default=200, help="sabotaged, and as many sound")
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    parser.add_argument("--docs", action="store_true", help="write docs/operations.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()

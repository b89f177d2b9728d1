"""One lane of the bench of rollouts: servers and clients of its own, and one version after another.

    python benchmarks/rollout_lane.py HOME LANE RATE UNTIL RESULTS CORE...

HOME/live is the version that answers. From HOME/ready each lane takes its next: a directory, called
by the version's number and kind. What came of it is a line of JSON in RESULTS as soon as that is
known. No version is begun after UNTIL, seconds since 1970.
"""

import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

from clients import Clients
from contenders import JSON_TYPE
from measuring import free_port, running, until_answered
from rollout_digits import MODEL, PATH, requests

from service.rollout.evidence import read_evidence
from service.rollout.following import follow
from service.rollout.guard import Guard, Step
from service.rollout.state import abort, hold, start
from sluice.wire.rollouts import Rollout, Stage

# What is there in 1 of 500 answers is missed in 1 of 120 cases by so many pairs; by 1,000, in 16.
GUARD = Guard(pairs=2400, patience=10_000, seconds=0, steps=(Step(0.1, 20), Step(0.5, 100)))
CLIENTS = 4
LIVE = 1
GOLDEN = 0.618034  # of whose multiples no two are close together
SETTLED_S = 1.5  # without an answer by a version that was stopped: gateways look once a second
ASKED_ALONE = 100
LOADED_WITHIN_S, LOADING_S = 60.0, 0.2


class Outcome(NamedTuple):
    """Of one version: how many requests of users it had `answered`, how many it was `shadowed` for,
    and of so many that were `timed`, how many took longer and less long. `of` and `failed` are all
    requests meanwhile, and those without an answer, the first of which says `failure`. Times in
    seconds; `live_s` and `next_s` are medians of calls."""

    number: int
    kind: str
    promoted: bool
    answered: int
    shadowed: int
    timed: int
    slower: int
    faster: int
    live_s: float | None
    next_s: float | None
    of: int
    failed: int
    failure: str
    seconds: float
    why: str


def main(home: str, lane: str, rate: str, until: str, results: str, *cores: str) -> None:
    if cores:
        os.sched_setaffinity(0, map(int, cores))
    own = Path(home) / f"lane-{lane}"
    with (
        serving(own, Path(home) / "live") as (port, directory),
        clients_of(port, float(rate), int(lane)) as clients,
    ):
        for number, kind in _taken(Path(home) / "ready", directory, float(until)):
            outcome = _roll_out(directory, number, kind, clients)
            with Path(results).open("a") as lines:
                lines.write(json.dumps(outcome._asdict()) + "\n")


@contextmanager
def serving(home: Path, live: Path) -> Iterator[tuple[int, Path]]:
    """A gateway before the twin, as `sluice up` starts them: its port, and the model's directory,
    whose version LIVE is held."""
    repository = home / "repository"
    directory = repository / MODEL
    shutil.copytree(live, directory / str(LIVE))
    hold(directory, LIVE)
    http, grpc, admin = free_port(), free_port(), free_port()
    command = [sys.executable, "-m", "service.cli", "up", f"--model-repository={repository}"]
    command += [f"--http-port={http}", f"--grpc-port={grpc}"]
    body, log = home / "body", home / "log"
    body.write_bytes(next(requests(0))[0])
    with running(command, {"SLUICE_ADMIN_PORT": str(admin)}, log) as gateway:
        until_answered(gateway, f"http://127.0.0.1:{http}{PATH}", body, JSON_TYPE, log)
        yield http, directory


def clients_of(port: int, rate: float, lane: int) -> Clients:
    """At so many requests a second, of which CLIENTS come at the same time."""
    each_s = CLIENTS / rate
    offset = lane * GOLDEN % 1 * each_s  # no two lanes at the same time

    def due(begun: float) -> float:
        return ((begun - offset) // each_s + 1) * each_s + offset

    return Clients(port, PATH, CLIENTS, lambda client: requests(lane * CLIENTS + client), due)


def median_s(port: int, version: int) -> float:
    """How long its answers take, one after the other, once it is served."""
    connection, path = HTTPConnection("127.0.0.1", port), f"/v1/models/{MODEL}/versions/{version}"
    deadline, seconds = time.monotonic() + LOADED_WITHIN_S, list[float]()
    for body, headers in requests(version):
        began = time.monotonic()
        connection.request("POST", f"{path}:predict", body, dict(headers))
        reply = connection.getresponse()
        answer = reply.read()
        if reply.status == 200:
            seconds.append(time.monotonic() - began)
        elif began > deadline:
            raise SystemExit(f"version {version}: {reply.status} {answer[:200]!r}")
        else:
            time.sleep(LOADING_S)
        if len(seconds) == ASKED_ALONE:
            break
    return statistics.median(seconds)


def _taken(ready: Path, directory: Path, until: float) -> Iterator[tuple[int, str]]:
    """The number and kind of one after the other, which is in the model's directory then."""
    for found in sorted(ready.iterdir(), key=lambda path: int(path.name.split()[0])):
        number, _, kind = found.name.partition(" ")
        if time.time() > until:
            return
        try:
            found.rename(directory / number)
        except FileNotFoundError:  # another lane has it
            continue
        yield int(number), kind


def _roll_out(directory: Path, number: int, kind: str, clients: Clients) -> Outcome:
    began = time.monotonic()
    clients.asked.clear()
    clients.failures.clear()
    rollout = start(directory, number, live=LIVE, why=kind)
    ended = follow(directory, GUARD, lambda *_: None)
    assert ended is not None
    promoted = ended.stage is Stage.PROMOTED
    answered = _answered(clients, number, 0.0 if promoted else SETTLED_S)
    seen = read_evidence(directory, rollout.id)
    _put_back(directory, ended)
    return Outcome(
        number=number,
        kind=kind,
        promoted=promoted,
        answered=answered,
        shadowed=seen.pairs,
        timed=seen.timed,
        slower=seen.slower,
        faster=seen.faster,
        live_s=seen.shadow_live.quantile_s(0.5),
        next_s=seen.shadow_next.quantile_s(0.5),
        of=len(clients.asked),
        failed=len(clients.failures),
        failure=next(iter(clients.failures), ""),
        seconds=round(time.monotonic() - began, 1),
        why=ended.history[-1].why,
    )


def _answered(clients: Clients, version: int, settled_s: float) -> int:
    """How many requests it has answered, once it has answered none for so long."""
    while True:
        begun = [each.begun for each in list(clients.asked) if each.version == version]
        if not begun or time.monotonic() - max(begun) >= settled_s:
            return len(begun)
        time.sleep(0.1)


def _put_back(directory: Path, ended: Rollout) -> None:
    """The live version answers again, and the other is let go."""
    if ended.stage is Stage.PROMOTED:
        abort(directory)
    shutil.rmtree(directory / str(ended.next))


if __name__ == "__main__":
    main(*sys.argv[1:])

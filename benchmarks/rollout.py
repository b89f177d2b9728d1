"""Which versions a guarded rollout stops, and how many users each reaches.

    python benchmarks/rollout.py [--versions 200] [--lanes 40] [--seconds 3600] [--docs]
    python benchmarks/rollout.py --table .work/bench/rollout.jsonl

Each lane is a gateway and the twin, as `sluice up` starts them, under a steady load of handwritten
digits, each picture noised, so that none comes twice. One version after the other is rolled out in
it by the guard of rollout_lane.py: sabotaged ones of six kinds (rollout_versions.py), and sound
ones, trained from other seeds and held to the accuracy that publishing asks for. A version's number
is its seed. What comes of each is written down at once, as a line of JSON: the same command again
goes on with those that are missing.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import psutil
from measuring import HERE, core_numbers, cores, running, write_docs
from rollout_lane import LIVE, Outcome, clients_of, median_s, serving
from rollout_versions import Fault, Versions, faults, slowed

from service.rollout.state import start

ROOT = HERE.parent
WORK = ROOT / ".work" / "bench"
SOUND = "sound"
TRIAL = 1000  # products of matrices, of which one's time is told
LAST_ONES_S = 60.0
TIMED = 30  # pairs, of which a median says something

Planned = tuple[int, str]  # a version's number and kind


def main() -> None:
    options = _options()
    results = options.table or options.results
    if not options.table:
        results.parent.mkdir(parents=True, exist_ok=True)
        WORK.mkdir(parents=True, exist_ok=True)
        with suppress(KeyboardInterrupt):  # what there is by then is told
            _roll_out_all(options)
    text = report(read_outcomes(results))
    print(text)
    if options.docs:
        write_docs("operations.md", "make bench-rollout", text)


def _roll_out_all(options: argparse.Namespace) -> None:
    """Those that the results lack."""
    until = time.time() + options.seconds
    with tempfile.TemporaryDirectory(dir=WORK) as directory:
        home = Path(directory)
        versions = Versions(home / "template")
        versions.write(home / "live", versions.sound)
        kinds = faults(versions, _products(home, versions, options.rate))
        done = {outcome.number for outcome in read_outcomes(options.results)}
        planned = [each for each in plan(list(kinds), options.versions) if each[0] not in done]
        _make(home / "ready", planned, versions, kinds)
        print(f"{len(planned)} versions made; results: {options.results}", file=sys.stderr)
        _in_lanes(home, options, until)


def plan(kinds: Sequence[str], count: int) -> list[Planned]:
    """So many sabotaged versions, of each kind as many, and as many sound ones, in turn."""
    names = [name for turn in range(count) for name in (kinds[turn % len(kinds)], SOUND)]
    return list(enumerate(names, LIVE + 1))


def _products(home: Path, versions: Versions, rate: float) -> int:
    """How many products make an answer take twice as long, under load."""
    with serving(home / "calibrated", home / "live") as (port, directory):
        versions.write(directory / "2", slowed(versions.sound, TRIAL))
        with clients_of(port, rate, 0):
            start(directory, 2, live=LIVE, shadow_share=0)
            usual, slow = median_s(port, LIVE), median_s(port, 2)
    found = round(TRIAL * usual / (slow - usual))
    print(f"an answer takes {usual * 1e3:.1f} ms, and {found} products", file=sys.stderr)
    return found


def _make(
    ready: Path, planned: Sequence[Planned], versions: Versions, kinds: Mapping[str, Fault]
) -> None:
    """Where lanes take them from, before any begins: no training is to disturb a rollout."""
    ready.mkdir()
    seeds = [number for number, kind in planned if kind == SOUND]
    trained = versions.retrained(seeds, cores())
    for number, kind in planned:
        weights = (
            next(trained)
            if kind == SOUND
            else kinds[kind](versions.sound, np.random.default_rng(number))
        )
        versions.write(ready / f"{number} {kind}", weights)


def _in_lanes(home: Path, options: argparse.Namespace, until: float) -> None:
    """Each a process that is given as many cores of its own as there are, if there are."""
    numbers = core_numbers()
    each = len(numbers) // options.lanes
    with ExitStack() as stack:
        lanes = []
        for lane in range(options.lanes):
            command = [sys.executable, str(HERE / "rollout_lane.py"), str(home), str(lane)]
            command += [str(options.rate), str(until), str(options.results.absolute())]
            command += map(str, numbers[lane * each : (lane + 1) * each])
            lanes.append(stack.enter_context(running(command, {}, home / f"lane-{lane}.log")))
        gone, _ = psutil.wait_procs(lanes, max(0.0, until + LAST_ONES_S - time.time()))
        ended = {process.pid for process in gone if not process.returncode}
        for lane, process in enumerate(lanes):
            if process.pid not in ended:
                told = (home / f"lane-{lane}.log").read_text()[-2000:]
                print(f"lane {lane} did not come to its end: {told}", file=sys.stderr)


def read_outcomes(path: Path) -> list[Outcome]:
    """By number; of a line that was cut off nothing is known."""
    outcomes = list(_parsed(path.read_text())) if path.exists() else []
    return sorted(outcomes, key=lambda outcome: outcome.number)


def _parsed(text: str) -> Iterator[Outcome]:
    for line in text.splitlines():
        with suppress(ValueError):
            yield Outcome(**json.loads(line))


def report(outcomes: Sequence[Outcome]) -> str:
    """A table in Markdown, of as many as there are."""
    asked, failed = sum(each.of for each in outcomes), sum(each.failed for each in outcomes)
    bad = [each for each in outcomes if each.kind != SOUND]
    sound = [each for each in outcomes if each.kind == SOUND]
    lines = [
        f"{_stopped(bad)} sabotaged versions were stopped, and {_stopped(sound)} sound ones. "
        f"{asked:,} requests, {failed} failed:",
        "",
        "| version | rolled out | stopped | shadowed, median | users reached, median | at most |"
        " as long as live | seconds, median |",
        "|---|---|---|---|---|---|---|---|",
    ]
    kinds = dict.fromkeys(each.kind for each in outcomes)
    lines += [_row(kind, [each for each in outcomes if each.kind == kind]) for kind in kinds]
    return "\n".join(lines)


def _row(kind: str, of: Sequence[Outcome]) -> str:
    reached = [each.answered for each in of]
    ratios = [
        each.next_s / each.live_s
        for each in of
        if each.next_s and each.live_s and each.timed >= TIMED  # the first calls take longer
    ]
    slowness = f"{statistics.median(ratios):.1f}×" if ratios else ""
    return (
        f"| {kind} | {len(of)} | {sum(not each.promoted for each in of)} | "
        f"{statistics.median(each.shadowed for each in of):.0f} | "
        f"{statistics.median(reached):.0f} | {max(reached)} | "
        f"{slowness} | "
        f"{statistics.median(each.seconds for each in of):.0f} |"
    )


def _stopped(outcomes: Sequence[Outcome]) -> str:
    return f"{sum(not each.promoted for each in outcomes)} of {len(outcomes)}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--versions", type=int, default=200, help="sabotaged, and as many sound")
    parser.add_argument("--lanes", type=int, default=4 * cores(), help="side by side")
    parser.add_argument("--rate", type=float, default=40.0, help="requests a second of a lane")
    parser.add_argument("--seconds", type=float, default=3600.0, help="none is begun after them")
    parser.add_argument(
        "--results", type=Path, default=WORK / "rollout.jsonl", help="what comes of each version"
    )
    parser.add_argument("--table", type=Path, help="print the table of these results, and no more")
    parser.add_argument("--docs", action="store_true", help="write docs/operations.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()

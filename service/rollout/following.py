"""A guarded rollout as it goes on: look at what gateways count, and move the version on, or back.

Whoever follows may be killed at any point and begin anew, here or on another machine that sees the
repository: where the rollout stands is in its own file, what was seen in `.watch.json` beside the
evidence. Evidence that was looked at twice counts once.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from service.rollout.evidence import Evidence, evidence_directory, evidence_of, read_evidence
from service.rollout.guard import Guard
from service.rollout.sequential import Comparison
from service.rollout.state import StateError, abort, canary, promote
from service.rollout.watch import Action, Verdict, Watch
from sluice.wire.rollouts import Rollout, Stage, read_rollout

LOOK_S = 1.0  # as often as gateways write what they have counted
TELL_EVERY_S = 10.0
_WATCH_FILE = ".watch.json"  # hidden from those who add up the evidence

Tell = Callable[[Rollout, Verdict], None]


class Telling:
    """Says every step, and about what is waited for at the most each TELL_EVERY_S."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say, self._said, self._at = say, "", 0.0

    def __call__(self, rollout: Rollout, verdict: Verdict) -> None:
        if verdict.action is Action.WAIT:
            if verdict.why == self._said or time.monotonic() < self._at + TELL_EVERY_S:
                return
            self._said, self._at = verdict.why, time.monotonic()
        self._say(f"{_where(rollout)}: {verdict.why}")


def _where(rollout: Rollout) -> str:
    return f"{rollout.stage} of {rollout.canary:.3g}" if rollout.canary else str(rollout.stage)


def follow(directory: Path, guard: Guard, tell: Tell, look_s: float = LOOK_S) -> Rollout | None:
    """Go on until the version answers all or none, whoever has moved it there, and return that
    rollout; None where it was taken away. `tell` hears every verdict. Raises ValueError, OSError.
    """
    watch = None
    while True:
        rollout = read_rollout(directory)
        if rollout is None or rollout.stage not in (Stage.SHADOW, Stage.CANARY, Stage.PAUSED):
            return rollout
        if rollout.stage is not Stage.PAUSED:
            if watch is None or watch.seen.rollout != rollout.id:
                watch = read_watch(directory, rollout, guard)
            step(directory, watch, rollout, tell)
        time.sleep(look_s)


def step(directory: Path, watch: Watch, rollout: Rollout, tell: Tell) -> None:
    """Look once, and do what follows from it."""
    watch.look(read_evidence(directory, rollout.id), rollout)
    _write_watch(directory, watch)
    verdict = watch.verdict(rollout, time.time())
    tell(rollout, verdict)
    try:
        if verdict.action is Action.STOP:
            abort(directory, verdict.why, seen=rollout)
        elif verdict.action is Action.ADVANCE and verdict.share < 1:
            canary(directory, verdict.share, verdict.why, seen=rollout)
        elif verdict.action is Action.ADVANCE:
            promote(directory, verdict.why, seen=rollout)
    except StateError:
        pass  # somebody has moved it since; the next look sees where to


def read_watch(directory: Path, rollout: Rollout, guard: Guard) -> Watch:
    """As it was at the last look; what was allowed otherwise then begins anew."""
    watch = Watch(guard, Evidence(rollout.id))
    try:
        kept = json.loads(_watch_path(directory, rollout.id).read_text())
        for name, allowed, logs in kept["comparisons"]:
            if guard.times.get(name) == allowed:
                watch.comparisons[name] = Comparison(allowed, np.array(logs))
        return replace(
            watch, seen=evidence_of(kept["seen"]), share=kept["share"], canary=kept["canary"]
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return watch


def _write_watch(directory: Path, watch: Watch) -> None:
    path = _watch_path(directory, watch.seen.rollout)
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {
        "seen": asdict(watch.seen),
        "share": watch.share,
        "canary": watch.canary,
        "comparisons": [
            (name, each.allowed, each.logs.tolist()) for name, each in watch.comparisons.items()
        ],
    }
    beside = path.with_name(f"{path.name}.new")
    beside.write_text(json.dumps(kept))
    beside.replace(path)


def _watch_path(directory: Path, rollout: str) -> Path:
    return evidence_directory(directory, rollout) / _WATCH_FILE

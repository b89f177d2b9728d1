"""A guarded rollout as it goes on: look at what gateways count, and move the version on, or back.

Whoever follows may be killed at any point and begin anew, here or on another machine that sees the
repository: where the rollout stands is in its own file, what was seen in `.watch.json` beside the
evidence. Evidence that was looked at twice counts once. Of several who follow a model one does, and
the next goes on where that one ends.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import numpy as np

from service.rollout.evidence import (
    REPLAYED,
    Evidence,
    evidence_directory,
    evidence_of,
    read_evidence,
)
from service.rollout.guard import Guard
from service.rollout.sequential import Comparison
from service.rollout.state import ASKED_STAGES, StateError, abort, canary, promote, shadow
from service.rollout.watch import Action, Verdict, Watch
from sluice.wire.rollout_files import read_rollout
from sluice.wire.rollouts import Rollout, Stage
from sluice.wire.shared import open_lock, write_whole

LOOK_S = 1.0  # as often as gateways write what they have counted
TELL_EVERY_S = 10.0
_WATCH_FILE = ".watch.json"  # hidden from those who add up the evidence
_LOCK = ".following.lock"
_OTHERS = Verdict(Action.WAIT, "another command follows it; this one goes on where that one ends")

Tell = Callable[[Rollout, Verdict], None]


class Replay(Protocol):
    """What goes on in the stage `replay`."""

    def verdict(self) -> Verdict:
        """Whether it is over."""

    def go_on(self, seconds: float) -> None:
        """For about so long."""

    def close(self) -> None:
        """It is needed no more."""


class NoReplay:
    """Has nothing to ask."""

    def verdict(self) -> Verdict:
        return Verdict(Action.ADVANCE, "no captured requests are given (--capture)")

    def go_on(self, seconds: float) -> None:
        time.sleep(seconds)

    def close(self) -> None:
        pass


NO_REPLAY = NoReplay()


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


class _Turn:
    """Of several who follow a model's rollouts: one after the other."""

    def __init__(self, directory: Path) -> None:
        self._file = open_lock(directory / _LOCK)

    def is_ours(self) -> bool:
        """Whether it is; once it is it stays so."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        os.close(self._file)


def follow(
    directory: Path,
    guard: Guard,
    tell: Tell,
    look_s: float = LOOK_S,
    replay: Replay = NO_REPLAY,
) -> Rollout | None:
    """Go on until the version answers all or none, whoever has moved it there, and return that
    rollout; None where it was taken away, or another has begun. `tell` hears every verdict.

    What cannot be read or written for now is tried again, as a guard that ends leaves the version
    to itself. Raises ValueError for a file that is none of ours, OSError at the first look.
    """
    first = now = read_rollout(directory)
    watch = None
    with closing(_Turn(directory)) as turn:
        while first and now and now.id == first.id and now.stage in ASKED_STAGES:
            seen = now
            try:
                if not turn.is_ours():
                    tell(seen, _OTHERS)
                else:
                    watch = watch or read_watch(directory, seen, guard)
                    step(directory, watch, seen, tell, replay)
                go_on = replay.go_on if watch and seen.stage is Stage.REPLAY else time.sleep
                go_on(look_s)
            except OSError as error:
                _wait(directory, seen, error, tell, look_s)
            now = _read(directory, seen, tell, look_s)
    return now if first and now and now.id == first.id else None


def _read(directory: Path, seen: Rollout, tell: Tell, look_s: float) -> Rollout | None:
    """As it stands, once it can be read: what is done follows from nothing older."""
    while True:
        try:
            return read_rollout(directory)
        except OSError as error:
            _wait(directory, seen, error, tell, look_s)


def _wait(directory: Path, seen: Rollout, error: OSError, tell: Tell, look_s: float) -> None:
    told = f"{error.filename or directory}: {error.strerror}; it is tried again"
    tell(seen, Verdict(Action.WAIT, told))
    time.sleep(look_s)


def step(
    directory: Path, watch: Watch, rollout: Rollout, tell: Tell, replay: Replay = NO_REPLAY
) -> None:
    """Look once, and do what follows from it: in a pause nothing, but what live alone has answered
    meanwhile is no part of the batch that comes after it."""
    if rollout.stage is Stage.PAUSED and watch.replays:
        return
    but = "" if rollout.stage is Stage.REPLAY else REPLAYED
    watch.look(read_evidence(directory, rollout.id, but), rollout)
    if rollout.stage is not Stage.PAUSED:
        _decide(directory, watch, rollout, tell, replay)
    _write_watch(directory, watch)


def _decide(directory: Path, watch: Watch, rollout: Rollout, tell: Tell, replay: Replay) -> None:
    verdict = watch.verdict(rollout, time.time())
    if rollout.stage is Stage.REPLAY and verdict.action is not Action.STOP:
        verdict = replay.verdict()
    tell(rollout, verdict)
    with suppress(StateError):  # somebody has moved it since; the next look sees where to
        _move(directory, rollout, verdict)


def _move(directory: Path, rollout: Rollout, verdict: Verdict) -> None:
    if verdict.action is Action.STOP:
        abort(directory, verdict.why, seen=rollout)
    elif verdict.action is Action.WAIT:
        return
    elif rollout.stage is Stage.REPLAY:
        shadow(directory, verdict.why, seen=rollout)
    elif verdict.share < 1:
        canary(directory, verdict.share, verdict.why, seen=rollout)
    else:
        promote(directory, verdict.why, seen=rollout)


def read_watch(directory: Path, rollout: Rollout, guard: Guard) -> Watch:
    """As it was at the last look; what was allowed otherwise then begins anew, and all of it where
    the file does not say everything, or what was seen would count twice."""
    try:
        kept = json.loads(_watch_path(directory, rollout.id).read_text())
        comparisons = {
            name: Comparison(allowed, np.array(logs))
            for name, allowed, logs in kept["comparisons"]
            if guard.times.get(name) == allowed
        }
        counted = {name: kept[name] for name in ("share", "canary", "replays")}
        return Watch(guard, evidence_of(kept["seen"]), comparisons, **counted)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return Watch(guard, Evidence(rollout.id))


def _write_watch(directory: Path, watch: Watch) -> None:
    kept = {
        "seen": asdict(watch.seen),
        "share": watch.share,
        "canary": watch.canary,
        "replays": watch.replays,
        "comparisons": [
            (name, each.allowed, each.logs.tolist()) for name, each in watch.comparisons.items()
        ],
    }
    write_whole(_watch_path(directory, watch.seen.rollout), json.dumps(kept))


def _watch_path(directory: Path, rollout: str) -> Path:
    return evidence_directory(directory, rollout) / _WATCH_FILE

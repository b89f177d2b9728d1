"""What may become of a rollout, and who is asked while it lasts.

     start ─▶ (replay) ─▶ shadow ─▶ canary ─▶ promoted       pause: from the first three, and back
                 └──────────┴─────────┴─────────┴──▶ rolled_back         (abort)

Every change is one file renamed (sluice/wire/rollout_files.py), under a lock that the kernel takes
away from whoever dies: killed at any point, a command has changed all or nothing, and may be run
again.
"""

import fcntl
import getpass
import hashlib
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeGuard

from service.rollout.evidence import forget_evidence
from sluice.wire.rollout_files import read_rollout, remove_rollout, write_rollout
from sluice.wire.rollouts import RANDOM, Rollout, Stage
from sluice.wire.shared import open_lock
from sluice.wire.versions import find_versions, published_versions

# What may go on, or be stopped.
ASKED_STAGES = (Stage.REPLAY, Stage.SHADOW, Stage.CANARY, Stage.PAUSED)
BY_HAND = "by hand"
_LOCK = ".rollout.lock"


class StateError(Exception):
    """What cannot be done with a rollout as it is."""


def start(
    directory: Path,
    version: int,
    *,
    live: int | None = None,
    by: str = RANDOM,
    shadow_share: float = 1.0,
    why: str = BY_HAND,
    stage: Stage = Stage.SHADOW,
) -> Rollout:
    """A rollout of `version`, in the stage shadow, or replay. `live` is the version that answers
    meanwhile: the one that does now where it is not given. Where no rollout says which, that is the
    newest, and where `version` is the newest, so that it answers since it was published, the one
    before it.

    The same one again, as after a command that was killed, changes nothing, promoted or not. Raises
    StateError, ValueError for a file that is none of ours.
    """
    with _locked(directory):
        before = _found(directory)
        if _is_of(before, version) and live in (None, before.live):
            return before
        _check_none_under_way(directory, before)
        published = published_versions(directory)
        live = _live(directory.name, version, live, before, published)
        for number in (version, live):
            _check_published(directory, number, published)
        if version == live:
            raise StateError(f"{directory.name} {version} is what answers already")
        forget_evidence(directory, before.id if before else None)
        earlier = before.remembered if before else ()
        rollout = Rollout(
            secrets.token_hex(8), live, version, stage, shadow_share, by=by, earlier=earlier
        )
        return _written(directory, rollout.moved(stage, why, time.time(), who=_who()))


def hold(directory: Path, version: int | None = None, why: str = BY_HAND) -> Rollout:
    """Hold the version that answers now, or another, until a rollout brings the next. Raises
    StateError."""
    with _locked(directory):
        before = _found(directory)
        _check_none_under_way(directory, before)
        published = published_versions(directory)
        if version is None:
            version = before.answering if before else max(published, default=0)
        _check_published(directory, version, published)
        earlier = before.remembered if before else ()
        rollout = Rollout(secrets.token_hex(8), version, version, Stage.PROMOTED, earlier=earlier)
        return _written(directory, rollout.moved(Stage.PROMOTED, why, time.time(), who=_who()))


def shadow(directory: Path, why: str = BY_HAND, seen: Rollout | None = None) -> Rollout:
    """On, or back, to where nobody is answered by the next version; `seen` as with `canary`. Raises
    StateError."""
    return _move(directory, Stage.SHADOW, why, ASKED_STAGES, seen=seen)


def canary(
    directory: Path, share: float, why: str = BY_HAND, seen: Rollout | None = None
) -> Rollout:
    """Let the next version answer a share of the requests, from 0 to 1. `seen`: only if the rollout
    is still as it was then. Raises StateError."""
    return _move(directory, Stage.CANARY, why, ASKED_STAGES, share, seen=seen)


def promote(directory: Path, why: str = BY_HAND, seen: Rollout | None = None) -> Rollout:
    """Let the next version answer all; `seen` as with `canary`. Raises StateError."""
    return _move(directory, Stage.PROMOTED, why, ASKED_STAGES, seen=seen)


def abort(directory: Path, why: str = BY_HAND, seen: Rollout | None = None) -> Rollout:
    """Let the live version answer all, also after the next was promoted; `seen` as with `canary`.
    Raises StateError."""
    return _move(directory, Stage.ROLLED_BACK, why, (*ASKED_STAGES, Stage.PROMOTED), seen=seen)


def pause(directory: Path, why: str = BY_HAND) -> Rollout:
    """Let the live version answer all, and ask the next nothing, for now. Raises StateError."""
    with _locked(directory):
        before = _read(directory)
        _check(before, Stage.PAUSED, ASKED_STAGES)
        return _moved(directory, before, Stage.PAUSED, why, before.canary_share)


def resume(directory: Path, why: str = BY_HAND) -> Rollout:
    """Go on in the stage that was paused; nothing where none is. Raises StateError."""
    with _locked(directory):
        before = _read(directory)
        _check(before, Stage.SHADOW, ASKED_STAGES)
        if before.stage is not Stage.PAUSED:
            return before
        stages = (event.stage for event in reversed(before.history))
        stage = next((each for each in stages if each is not Stage.PAUSED), Stage.SHADOW)
        return _moved(directory, before, stage, why, before.canary_share)


def end(directory: Path) -> None:
    """From then on the newest version answers again. Raises StateError while a rollout is under
    way."""
    with _locked(directory):
        before = _found(directory)
        _check_none_under_way(directory, before)
        remove_rollout(directory)
        forget_evidence(directory)


def goes_to_next(rollout: Rollout, model: str, value: str) -> bool:
    """Whether the canary answers requests with this value of what they are chosen by. The same
    value always goes the same way, in every gateway; a growing share only adds values; and the next
    version's are others.

    >>> rollout = Rollout("a", 1, 2, Stage.CANARY, canary_share=0.5)
    >>> [goes_to_next(rollout, "digits", user) for user in ("ann", "bob", "cleo", "dan")]
    [False, True, True, False]
    """
    named = f"{model}\\0{rollout.next}\\0{value}".encode(errors="surrogateescape")
    place = int.from_bytes(hashlib.blake2b(named, digest_size=7).digest())
    return place < rollout.canary * (1 << 56)


def _live(
    name: str, version: int, live: int | None, before: Rollout | None, published: Mapping[int, Path]
) -> int:
    """The version that is to answer while `version` is rolled out."""
    if live is not None:
        return live
    if before is not None:
        return before.answering
    newest = max(published, default=version)
    if newest > version:
        return newest
    older = [number for number in published if number < version]
    if not older:
        raise StateError(f"{name} has no version before {version}: say which one answers (--live)")
    return max(older)


def _move(
    directory: Path,
    stage: Stage,
    why: str,
    possible: tuple[Stage, ...],
    share: float = 0.0,
    seen: Rollout | None = None,
) -> Rollout:
    with _locked(directory):
        before = _read(directory)
        if seen not in (None, before):
            raise StateError(f"the rollout of {directory.name} {before.next} has moved meanwhile")
        _check(before, stage, possible)
        return _moved(directory, before, stage, why, share)


def _moved(directory: Path, before: Rollout, stage: Stage, why: str, share: float) -> Rollout:
    if (before.stage, before.canary_share) == (stage, share):
        return before
    return _written(directory, before.moved(stage, why, time.time(), share, _who()))


def _who() -> str:
    """Whose process this is."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container users have numbers alone
        return f"user {os.getuid()}"


def _written(directory: Path, rollout: Rollout) -> Rollout:
    there = find_versions(directory)
    for number in sorted(rollout.loaded):
        _check_published(directory, number, there)
    write_rollout(directory, rollout)
    return rollout


def _found(directory: Path) -> Rollout | None:
    """Whether its versions are there or not: from one that is gone there has to be a way back."""
    return read_rollout(directory, check_versions=False)


def _read(directory: Path) -> Rollout:
    found = _found(directory)
    if found is None:
        raise StateError(
            f"nothing of {directory.name} is being rolled out; sluice rollout {directory.name} "
            "VERSION begins"
        )
    return found


def _is_of(rollout: Rollout | None, version: int) -> TypeGuard[Rollout]:
    """Whether it brings, or has brought, this version into service."""
    if rollout is None or rollout.next != version or rollout.live == version:
        return False
    return rollout.stage is not Stage.ROLLED_BACK


def _is_under_way(rollout: Rollout | None) -> TypeGuard[Rollout]:
    return rollout is not None and rollout.stage in ASKED_STAGES


def _check_none_under_way(directory: Path, rollout: Rollout | None) -> None:
    if _is_under_way(rollout):
        raise StateError(
            f"{directory.name} {rollout.next} is being rolled out: promote it, or abort it, first"
        )


def _check_published(directory: Path, version: int, published: Mapping[int, Path]) -> None:
    if version not in published:
        there = ", ".join(map(str, published)) or "none"
        raise StateError(f"{directory.name} has no version {version}; there are: {there}")


def _check(before: Rollout, stage: Stage, possible: tuple[Stage, ...]) -> None:
    if before.live == before.next:
        raise StateError(f"version {before.next} is held, and none is being rolled out")
    if before.stage is not stage and before.stage not in possible:
        raise StateError(
            f"version {before.next} is {before.stage.replace('_', ' ')}: it cannot be "
            f"{stage.replace('_', ' ')} from there"
        )


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Alone with the state. The kernel unlocks it when whoever has it is killed."""
    descriptor = open_lock(directory / _LOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)

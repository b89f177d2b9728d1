"""Where it is written how a model's next version comes into service,
`<repository>/<model>/rollout.json`.

No model server reads it. `sluice rollout` writes it, gateways follow it, and `sluice up` puts what
it says into models.config: which versions are to be loaded, and the labels `stable` and `canary`.
While it is there a version that is published does not go live by itself.
"""

import json
import re
import stat
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sluice.wire.durable import sync
from sluice.wire.fields import field, share_field, shown, version_field
from sluice.wire.rollouts import RANDOM, Earlier, Event, Rollout, Stage, checked_by
from sluice.wire.versions import find_versions

ROLLOUT_FILE = "rollout.json"
MOST_BYTES = 1 << 20  # of it; a change of stage takes about 150
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")  # it names a folder


def read_rollout(model_directory: Path, *, check_versions: bool = True) -> Rollout | None:
    """The model's; None where there is none.

    Raises ValueError for a file that is none of ours or, unless told otherwise, names a version
    that is not there; OSError where it cannot be read.

    >>> read_rollout(Path("no such model"))
    """
    path = model_directory / ROLLOUT_FILE
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:
            raise ValueError(f"{path} is no file, or has more than {MOST_BYTES:,} bytes")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text: {error}") from error
    try:
        rollout = parse_rollout(text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    missing = rollout.loaded - find_versions(model_directory).keys() if check_versions else ()
    if missing:
        raise ValueError(f"{path}: there is no version {min(missing)} of {model_directory.name}")
    return rollout


def parse_rollout(text: str) -> Rollout:
    """What the text of a file says. Raises ValueError.

    >>> parse_rollout('{"id": "a", "live": 1, "next": 2, "stage": "canary"}').stage
    <Stage.CANARY: 'canary'>
    """
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON: {error}") from error
    if not isinstance(given, dict):
        raise ValueError('it is not as expected, {"live": 1, "next": 2, "stage": "shadow", ...}')
    if unknown := sorted(given.keys() - Rollout.__dataclass_fields__.keys()):
        raise ValueError(f"{shown(unknown[0])} is no key of a rollout")
    found = Rollout(
        id=_id(given),
        live=version_field(given, "live"),
        next=version_field(given, "next"),
        stage=_stage(given),
        shadow_share=share_field(given, "shadow_share", Rollout.shadow_share),
        canary_share=share_field(given, "canary_share", Rollout.canary_share),
        by=checked_by(given.get("by", RANDOM)),
        history=_history(given),
        earlier=tuple(map(_earlier, field(given, "earlier", list, []))),
    )
    if found.live == found.next and found.stage is not Stage.PROMOTED:
        raise ValueError(f"live and next are both {found.live}")
    return found


def write_rollout(model_directory: Path, rollout: Rollout) -> None:
    """Write the file whole: whoever reads it finds the old one or the new one. What is oldest is
    left out where that would be too much to be read again. Raises ValueError for one that could
    not be, OSError.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as model:
    ...     for version in "12":
    ...         Path(model, version).mkdir()
    ...     write_rollout(Path(model), Rollout("a", 1, 2, Stage.SHADOW))
    ...     read_rollout(Path(model)).stage
    <Stage.SHADOW: 'shadow'>
    """
    path = model_directory / ROLLOUT_FILE
    text = _fitting(rollout)
    parse_rollout(text)
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)  # of another user's command, that was killed
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
    sync(beside)
    beside.replace(path)
    sync(model_directory)


def remove_rollout(model_directory: Path) -> None:
    """From then on the newest version answers.

    >>> remove_rollout(Path("no such model"))
    """
    (model_directory / ROLLOUT_FILE).unlink(missing_ok=True)


def _fitting(rollout: Rollout) -> str:
    """The way back must not fail for how much has happened before it. Raises ValueError."""
    while len(text := json.dumps(as_written(rollout), indent=2) + "\n") > MOST_BYTES:
        history = rollout.history
        if rollout.earlier:
            rollout = replace(rollout, earlier=rollout.earlier[1:])
        elif len(history) > 2:
            kept = (history[0], *history[len(history) // 2 + 1 :])
            rollout = replace(rollout, history=kept)
        else:
            raise ValueError(f"a rollout is told in {MOST_BYTES:,} bytes: give a shorter reason")
    return text


def _id(given: Mapping[str, Any]) -> str:
    found: str = field(given, "id", str)
    if not _ID.fullmatch(found):
        raise ValueError(f"id: expected 1 to 64 letters, digits, - and _, got {shown(found)}")
    return found


def _stage(given: Mapping[str, Any]) -> Stage:
    try:
        return Stage(given.get("stage"))  # type: ignore[arg-type]
    except ValueError:
        known = ", ".join(Stage)
        got = shown(given.get("stage"))
        raise ValueError(f"stage: expected one of {known}, got {got}") from None


def _history(given: Mapping[str, Any]) -> tuple[Event, ...]:
    return tuple(map(_event, field(given, "history", list, [])))


def _earlier(given: Any) -> Earlier:
    if not isinstance(given, dict):
        raise ValueError(f"earlier: expected objects, got {shown(given)}")
    return Earlier(version_field(given, "live"), version_field(given, "next"), _history(given))


def _event(given: Any) -> Event:
    if not isinstance(given, dict):
        raise ValueError(f"history: expected objects, got {shown(given)}")
    try:
        at = datetime.fromisoformat(field(given, "at", str)).timestamp()
    except (ValueError, OverflowError) as error:
        raise ValueError(f"history: {error}") from None
    share = share_field(given, "canary_share", Rollout.canary_share)
    why, who = field(given, "why", str), field(given, "who", str, "")
    return Event(at, _stage(given), share, why, who)


def as_written(of: Rollout | Earlier) -> dict[str, Any]:
    """As JSON has it, with times as texts.

    >>> as_written(Earlier(1, 2, (Event(1.8e9, Stage.SHADOW, 0.0, ""),)))["history"][0]["at"]
    '2027-01-15T08:00:00+00:00'
    """
    history = [asdict(event) | {"at": _written(event.at)} for event in of.history]
    found = asdict(of) | {"history": history}
    return found | {"earlier": [*map(as_written, of.earlier)]} if isinstance(of, Rollout) else found


def _written(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()

"""How a model's next version comes into service, `<repository>/<model>/rollout.json`.

No model server reads it. `sluice rollout` writes it, gateways follow it, and `sluice up` puts what
it says into models.config: which versions are to be loaded, and the labels `stable` and `canary`.
While it is there a version that is published does not go live by itself.
"""

import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from sluice.wire.fields import field, share_field, shown, version_field
from sluice.wire.versions import find_versions

ROLLOUT_FILE = "rollout.json"
MOST_BYTES = 1 << 20  # of it; a change of stage takes about 150
STABLE, CANARY_LABEL = "stable", "canary"
RANDOM, BY_KEY, BY_HEADER = "random", "key", "header:"  # how requests are chosen
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")  # it names a folder
_HEADER = re.compile(rf"{BY_HEADER}[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.IGNORECASE)
MOST_EARLIER = 20  # rollouts that are remembered


class Stage(StrEnum):
    """Where a rollout stands.

    >>> Stage("canary")
    <Stage.CANARY: 'canary'>
    """

    REPLAY = "replay"  # live answers; next is asked what was captured, by the command alone
    SHADOW = "shadow"  # live answers; next is asked the same, and its answers are compared
    CANARY = "canary"  # next answers a share of the requests, live the others
    PAUSED = "paused"  # live answers, and next is asked nothing
    PROMOTED = "promoted"  # next answers
    ROLLED_BACK = "rolled_back"  # live answers, and next is not to be loaded


@dataclass(frozen=True)
class Event:
    """When a stage began, seconds since 1970, the canary's share from then on, why, and the user
    whose command it was."""

    at: float
    stage: Stage
    canary_share: float
    why: str
    who: str = ""

    @property
    def when(self) -> str:
        """To the second.

        >>> Event(1.8e9, Stage.SHADOW, 0.0, "by hand").when
        '2027-01-15T08:00:00Z'
        """
        return datetime.fromtimestamp(self.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def __str__(self) -> str:
        """
        >>> print(Event(1.8e9, Stage.CANARY, 0.1, "by hand", "ann"))
        2027-01-15T08:00:00Z  canary 0.1, by hand (ann)
        """
        share = f" {self.canary_share:.3g}" if self.stage is Stage.CANARY else ""
        who = f" ({self.who})" if self.who else ""
        return f"{self.when}  {self.stage.replace('_', ' ')}{share}, {self.why}{who}"


@dataclass(frozen=True)
class Earlier:
    """A rollout that is over: of `next` beside `live`, and what became of it."""

    live: int
    next: int
    history: tuple[Event, ...]


@dataclass(frozen=True)
class Rollout:
    """`id` is another one for each rollout. Shares are of the requests that name no version, from 0
    to 1. `by` is RANDOM, BY_KEY, or BY_HEADER and a header's name in lower case. The last of
    `history` is the beginning of the stage that it is in. `earlier` are the model's last
    MOST_EARLIER rollouts before it, the oldest first.

    `live` and `next` are the same where a version is held and nothing else is to come.
    """

    id: str
    live: int
    next: int
    stage: Stage
    shadow_share: float = 1.0
    canary_share: float = 0.0
    by: str = RANDOM
    history: tuple[Event, ...] = ()
    earlier: tuple[Earlier, ...] = ()

    @property
    def answering(self) -> int:
        """The version that answers what names none, but for the canary's share.

        >>> Rollout("a", 1, 2, Stage.CANARY).answering, Rollout("a", 1, 2, Stage.PROMOTED).answering
        (1, 2)
        """
        return self.next if self.stage is Stage.PROMOTED else self.live

    @property
    def canary(self) -> float:
        """The share of requests that `next` answers now."""
        return self.canary_share if self.stage is Stage.CANARY else 0.0

    @property
    def shadow(self) -> float:
        """The share of what `live` answers that `next` is asked too, now."""
        return self.shadow_share if self.stage in (Stage.SHADOW, Stage.CANARY) else 0.0

    @property
    def loaded(self) -> frozenset[int]:
        """The versions that a model server has to hold. A promoted one has the version before it
        beside it, so that the way back takes no time.

        >>> sorted(Rollout("a", 1, 2, Stage.ROLLED_BACK).loaded)
        [1]
        """
        return frozenset({self.live} if self.stage is Stage.ROLLED_BACK else {self.live, self.next})

    @property
    def labels(self) -> Mapping[str, int]:
        """What the labels mean that a rollout moves: they are written nowhere else, so that one
        write changes both.

        >>> Rollout("a", 1, 2, Stage.SHADOW).labels
        {'stable': 1, 'canary': 2}
        """
        if self.stage in (Stage.PROMOTED, Stage.ROLLED_BACK):
            return {STABLE: self.answering}
        return {STABLE: self.live, CANARY_LABEL: self.next}

    def moved(
        self, stage: Stage, why: str, at: float, canary_share: float = 0.0, who: str = ""
    ) -> "Rollout":
        """The same in another stage, from `at` on.

        >>> Rollout("a", 1, 2, Stage.SHADOW).moved(Stage.CANARY, "by hand", 1.8e9, 0.1).canary
        0.1
        """
        event = Event(round(at, 3), stage, canary_share, why, who)
        return replace(self, stage=stage, canary_share=canary_share, history=(*self.history, event))

    @property
    def remembered(self) -> tuple[Earlier, ...]:
        """What the model's next rollout has as its `earlier`. A version that is held is none.

        >>> Rollout("a", 1, 2, Stage.PROMOTED).remembered
        (Earlier(live=1, next=2, history=()),)
        """
        own = () if self.live == self.next else (Earlier(self.live, self.next, self.history),)
        return (*self.earlier, *own)[-MOST_EARLIER:]


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
    """Write the file whole: whoever reads it finds the old one or the new one. Raises ValueError
    for one that could not be read again, OSError.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as model:
    ...     for version in "12":
    ...         Path(model, version).mkdir()
    ...     write_rollout(Path(model), Rollout("a", 1, 2, Stage.SHADOW))
    ...     read_rollout(Path(model)).stage
    <Stage.SHADOW: 'shadow'>
    """
    path = model_directory / ROLLOUT_FILE
    text = json.dumps(as_written(rollout), indent=2) + "\n"
    parse_rollout(text)
    beside = path.with_name(f".{path.name}.new")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())  # the name must not lead to an empty file after a power cut
    beside.replace(path)


def remove_rollout(model_directory: Path) -> None:
    """From then on the newest version answers.

    >>> remove_rollout(Path("no such model"))
    """
    (model_directory / ROLLOUT_FILE).unlink(missing_ok=True)


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


def checked_by(found: Any) -> str:
    """How requests are chosen, as it is written. Raises ValueError.

    >>> checked_by("header:X-User")
    'header:x-user'
    """
    if not isinstance(found, str) or not (found in (RANDOM, BY_KEY) or _HEADER.fullmatch(found)):
        raise ValueError(f"by: expected {RANDOM}, {BY_KEY} or {BY_HEADER}NAME, got {shown(found)}")
    return found.lower()


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

"""What gateways have seen of a rollout: counts that add up over gateways, workers and time.

Each worker of a gateway writes its own, whole, about once a second, into a file of its own in the
rollout's folder, `<repository>/.rollout/<model>/<id>/`: nothing else in a repository has to be
writable for a gateway. A file outlives its worker: of one that is
killed, what it counted since it last wrote is lost, a second at most, and nothing else.
"""

import json
import re
import shutil
from bisect import bisect_left
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from sluice.wire.shared import write_whole

REPLAYED = "replay.json"  # of what was captured, beside the files of the gateways' workers
_DIRECTORY = ".rollout"  # hidden, as no version is
_EVIDENCE = re.compile(r"[^.].*\.json")
# Upper bounds of latencies, seconds: each a quarter above the one before, 0.5 ms to 28 s. What is
# above the last is counted in one place more.
BOUNDS_S = tuple(0.0005 * 1.25**step for step in range(50))
SCORE_BINS = 20  # equal parts of 0..1
NOVEL = 1.0  # readings above it are unlike the training images
SLOWER = 1.5  # times as long as the other answer to the same request


@dataclass
class Answers:
    """Of one version, to one kind of requests. `seconds` counts the answers by how long they took
    (BOUNDS_S). Of those that tell how novel their rows are (`told`), half of the rows of `novel`
    ones are above NOVEL. `scores` counts them by the best score of their median row, of the first
    head by name that has some, in SCORE_BINS. A request counts once, or one of many rows would be
    many trials, which are not independent."""

    requests: int = 0
    errors: int = 0
    seconds: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    told: int = 0
    novel: int = 0
    scores: list[int] = field(default_factory=lambda: [0] * SCORE_BINS)

    def add(self, seconds: float) -> None:
        """One that was answered in so long."""
        self.requests += 1
        self.seconds[bisect_left(BOUNDS_S, seconds)] += 1

    def quantile_s(self, share: float) -> float | None:
        """The bound that this share of the answers did not go over, seconds; None of none.

        >>> of = Answers()
        >>> of.add(0.004)
        >>> f"{of.quantile_s(0.5):.4f}"
        '0.0047'
        """
        left = share * sum(self.seconds)
        for count, bound in zip(self.seconds, (*BOUNDS_S, BOUNDS_S[-1]), strict=True):
            left -= count
            if count and left <= 0:
                return bound
        return None

    def fail(self) -> None:
        """One that ended in an error."""
        self.requests += 1
        self.errors += 1


@dataclass
class Evidence:
    """Of one rollout, by its id.

    A pair is one request that `live` has answered to its caller and `next` to nobody: `pairs` of
    them, of which `changed` are answered otherwise, by `changes` of each kind (those of
    service.replay; one pair may have several). `shadow_live` and `shadow_next` are its two sides.
    Of the calls to next that had about as many rows as live's (`timed`), next took more than SLOWER
    times as long in `slower`, and live in `faster`: of equals both are as likely.

    `stable` and `canary` are the requests that live and next have answered to callers. A canary's
    error is one where live could answer; its caller has had that answer.

    `dropped` were to be asked of next too, and were not, for want of room; of what was captured,
    those that neither has answered. `asked`: of each file of what was captured, the number of the
    last record that was asked.
    """

    rollout: str
    pairs: int = 0
    changed: int = 0
    changes: dict[str, int] = field(default_factory=dict)
    shadow_live: Answers = field(default_factory=Answers)
    shadow_next: Answers = field(default_factory=Answers)
    timed: int = 0
    slower: int = 0
    faster: int = 0
    stable: Answers = field(default_factory=Answers)
    canary: Answers = field(default_factory=Answers)
    dropped: int = 0
    asked: dict[str, int] = field(default_factory=dict)

    def __add__(self, other: "Evidence") -> "Evidence":
        """Of both together.

        >>> one, other = Evidence("a", pairs=2), Evidence("a", pairs=3)
        >>> one.stable.add(0.004)
        >>> both = one + other
        >>> both.pairs, both.stable.requests
        (5, 1)
        """
        if self.rollout != other.rollout:
            raise ValueError(f"they are of two rollouts, {self.rollout} and {other.rollout}")
        both: Evidence = _sum(self, other)
        return both


def evidence_directory(model_directory: Path, rollout: str) -> Path:
    """Where that of a rollout lies, by its id."""
    return _directory(model_directory) / rollout


def forget_evidence(model_directory: Path, but: str | None = None) -> None:
    """That of all rollouts, but of the one with that id."""
    for found in _directory(model_directory).glob("*"):
        if found.name != but:
            shutil.rmtree(found, ignore_errors=True)


def write_evidence(path: Path, evidence: Evidence) -> None:
    """Write the file whole. Raises OSError.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as repository:
    ...     model = Path(repository, "digits")
    ...     folder = evidence_directory(model, "a")
    ...     write_evidence(folder / "one.json", Evidence("a", pairs=2))
    ...     write_evidence(folder / "other.json", Evidence("a", pairs=3))
    ...     read_evidence(model, "a").pairs
    5
    """
    write_whole(path, json.dumps(asdict(evidence)))


def read_evidence(model_directory: Path, rollout: str, but: str = "") -> Evidence:
    """The sum of what all workers have written of a rollout, by its id, `but` for the file of that
    name; what is none is passed over. Raises OSError where it cannot be listed, or one cannot be
    read now: without that the sum would shrink, and grow again by what was counted already.

    >>> read_evidence(Path("no such model"), "a").pairs
    0
    """
    found = Evidence(rollout)
    for path in _files(evidence_directory(model_directory, rollout)):
        if path.name != but:
            with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
                found += evidence_in(path)
    return found


def evidence_in(path: Path) -> Evidence:
    """What a file holds. Raises OSError, ValueError, KeyError, TypeError."""
    return evidence_of(json.loads(path.read_text()))


def evidence_of(given: dict[str, Any]) -> Evidence:
    """As `asdict` has given it. Raises KeyError, TypeError.

    >>> evidence_of(asdict(Evidence("a", pairs=2))).pairs
    2
    """
    return Evidence(
        **given
        | {
            name: Answers(**given[name])
            for name in ("shadow_live", "shadow_next", "stable", "canary")
        }
    )


def _files(folder: Path) -> list[Path]:
    """Not by `glob`, which takes a folder that it cannot list for an empty one."""
    try:
        return sorted(each for each in folder.iterdir() if _EVIDENCE.fullmatch(each.name))
    except FileNotFoundError:
        return []


def _directory(model_directory: Path) -> Path:
    return model_directory.parent / _DIRECTORY / model_directory.name


def _sum(one: Any, other: Any) -> Any:
    if isinstance(one, str):
        return one
    if isinstance(one, list):
        return [left + right for left, right in zip(one, other, strict=True)]
    if isinstance(one, dict):
        return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}
    if isinstance(one, int):
        return one + other
    return type(one)(
        **{
            each.name: _sum(getattr(one, each.name), getattr(other, each.name))
            for each in fields(one)
        }
    )

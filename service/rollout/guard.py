"""What a new version may do otherwise than the live one, and how it comes into service: a guard, as
a TOML file says it or by default.
"""

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from service.replay.changes import Kind
from sluice.wire.nearest import unknown_name

SLOWER_PAIRS = "slower"  # a share of the pairs too, beside the kinds of changes
ERRORS, SLOW, UNSURE, NOVEL = "errors", "slow", "unsure", "novel"

ALLOWED: Mapping[str, float] = MappingProxyType(
    {
        Kind.ERROR: 0.002,
        Kind.NAN: 0.0,
        Kind.SHAPE: 0.0,
        Kind.CLASS: 0.05,
        Kind.MASK: 0.05,
        Kind.VALUE: 0.05,
        SLOWER_PAIRS: 0.3,
    }
)
TIMES: Mapping[str, float] = MappingProxyType({ERRORS: 2.0, SLOW: 2.0, UNSURE: 2.0, NOVEL: 3.0})


class GuardError(ValueError):
    """What is wrong with a guard, in one line."""


class Step(NamedTuple):
    """The canary's share of the requests, and how many it answers before the next step."""

    share: float
    requests: int


MOST = 1e9  # of any number in a guard
STEPS = (Step(0.01, 20), Step(0.1, 100), Step(0.5, 400))


@dataclass(frozen=True)
class Guard:
    """`alpha`: the share of harmless versions that may be stopped, and of bad ones that may be
    taken for good in what has to be shown.

    A version is shadowed for `pairs` requests at the least, and stopped where it has not been shown
    to be good after `patience` of them. It stays in each stage for `seconds` at the least.

    `allowed`: of what kinds of changes (service.replay) how large a share of the pairs; for
    "slower", the share in which next takes over 1.5 times as long as live, less that in which live
    does. What is not named is not looked at. `times`: how often as the live version it may answer
    with errors, slowly (later than 1.5 times what 99 of 100 of the live one's answers take), unsure
    (with a best score as only a tenth of the live one's have), or find a picture novel.
    """

    alpha: float = 0.005
    pairs: int = 500
    patience: int = 20_000
    seconds: float = 60.0
    allowed: Mapping[str, float] = field(default_factory=lambda: ALLOWED)
    times: Mapping[str, float] = field(default_factory=lambda: TIMES)
    steps: tuple[Step, ...] = STEPS


def read_guard(path: Path) -> Guard:
    """Raises GuardError, OSError."""
    try:
        return parse_guard(path.read_text(encoding="utf-8"))
    except (GuardError, UnicodeDecodeError) as error:
        raise GuardError(f"{path}: {error}") from error


def parse_guard(text: str) -> Guard:
    """What a file says; what it does not say is as by default. Raises GuardError.

    >>> parse_guard("pairs = 900\\n[allowed]\\nclass = 0.1").allowed["class"]
    0.1
    """
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise GuardError(f"it is no TOML: {error}") from error
    _check_names("", given, Guard.__dataclass_fields__)
    found = Guard(
        alpha=_number(given, "alpha", Guard.alpha, most=0.5),
        pairs=_whole(given, "pairs", Guard.pairs),
        patience=_whole(given, "patience", Guard.patience),
        seconds=_number(given, "seconds", Guard.seconds),
        allowed=_numbers(given, "allowed", (*Kind, SLOWER_PAIRS), ALLOWED, most=1.0),
        times=_numbers(given, "times", tuple(TIMES), TIMES),
        steps=_steps(given),
    )
    if not found.alpha:
        raise GuardError("alpha: expected more than 0: nothing is ever shown for certain")
    for name, times in found.times.items():
        if not times:
            raise GuardError(f"times.{name}: expected more than 0: live does it too")
    return found


def _steps(given: Mapping[str, Any]) -> tuple[Step, ...]:
    if "steps" not in given:
        return STEPS
    steps = given["steps"]
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise GuardError("steps: expected [[steps]] tables, each of a share and requests")
    found = []
    for step in steps:
        _check_names("steps.", step, Step._fields)
        if missing := set(Step._fields) - step.keys():
            raise GuardError(f"steps: {min(missing)} is missing in {step}")
        share = _number(step, "share", 0.0, "steps.", most=1.0)
        found.append(Step(share, _whole(step, "requests", 0, "steps.")))
    shares = [0.0, *(step.share for step in found)]
    if any(later <= earlier for earlier, later in pairwise(shares)):
        raise GuardError(f"steps: expected shares that grow, got {shares[1:]}")
    return tuple(found)


def _numbers(
    given: Mapping[str, Any],
    name: str,
    known: tuple[str, ...],
    default: Mapping[str, float],
    most: float = MOST,
) -> Mapping[str, float]:
    table = given.get(name, {})
    if not isinstance(table, dict):
        raise GuardError(f"{name}: expected a table, [{name}], got {table!r}")
    _check_names(f"{name}.", table, known)
    return {**default} | {each: _number(table, each, 0.0, f"{name}.", most) for each in table}


def _whole(given: Mapping[str, Any], name: str, default: int, of: str = "") -> int:
    found = given.get(name, default)
    if type(found) is not int or found < 0:
        raise GuardError(f"{of}{name}: expected a whole number of 0 or more, got {found!r}")
    return found


def _number(
    given: Mapping[str, Any], name: str, default: float, of: str = "", most: float = MOST
) -> float:
    found = given.get(name, default)
    if type(found) not in (int, float) or not 0 <= found <= most:
        raise GuardError(f"{of}{name}: expected a number from 0 to {most:g}, got {found!r}")
    return float(found)


def _check_names(of: str, given: Mapping[str, Any], known: Collection[str]) -> None:
    if fault := unknown_name(given, known):
        raise GuardError(f"{of}{fault}")

"""A graph's weights in variables, or as constants: which of the two pays, as measured."""

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sluice.wire.contract import SERVING_TAG
from sluice.wire.processor import computes_bfloat16
from sluice.wire.versions import SAVED_MODEL
from training.data.dataset import Arrays
from training.publishing import joining
from training.publishing.holding import NotHeld, held_bytes
from training.publishing.saved_model import Session
from training.publishing.speed import images_per_s
from training.publishing.trials import Trials

UNMEASURED = "the machine that published it has no bfloat16 instructions"
VARIABLES, CONSTANTS = "variables", "constants"
_WORTH = 1.1  # times the images a second at batch 1: less is what a busy machine does by itself
_ROUNDS = 31
_MOST_BYTES = 2**31 - 1  # of a file of protobuf's

Facts = dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """bytes: on the disk. held: bytes, as `held_bytes` has them. images_per_s: by batch.

    >>> Measured(55_000_000, 235_000_000, {"1": 25.0}).held
    235000000
    """

    bytes: int
    held: int
    images_per_s: dict[str, float]


def choose(
    second: Path,
    facts: Facts,
    write: Callable[[Path], Facts],
    asked: Trials,
    inputs: Arrays,
    budget_mb: int,
) -> Facts:
    """The facts of the graph in `second`, which stays, or becomes the same with its weights as
    constants; in `weights`, which of the two it is, why, and what was measured of both.

    second: beside the file of the graph that it is to be joined with. facts: of it.
    write: puts the graph with constants into a directory, and says what is known of it.
    asked: requests for each signature. inputs: rows of `serving_default`.
    budget_mb: MB that a model server may hold more for constants.
    """
    other = second.with_name(f"{second.name}-constants")
    try:
        if refusal := _why_not_tried(second):
            return facts | _variables(refusal)
        others = write(other)
        if "absent" in others:
            return facts | _variables(f"as constants, {others['absent']}")
        try:
            ours, theirs = compare(second, other, asked, inputs)
        except NotHeld as error:
            return facts | _variables(f"what they take cannot be measured: {error}")
        chosen, because = decide(ours, theirs, budget_mb)
        figures = {VARIABLES: asdict(ours), CONSTANTS: asdict(theirs)}
        weights = {"weights": {"in": chosen, "because": because} | figures}
        if chosen == VARIABLES:
            return facts | weights | {"images_per_s": ours.images_per_s}
        shutil.rmtree(second)
        other.rename(second)
        del others["memory"]  # of a call: TensorFlow counts no constants there
        return others | weights | {"images_per_s": theirs.images_per_s}
    finally:
        joining.remove(other)


def decide(variables: Measured, constants: Measured, budget_mb: int) -> tuple[str, str]:
    """Which it is, and why.

    >>> ours = Measured(56_000_000, 235_000_000, {"1": 25.0})
    >>> decide(ours, Measured(56_000_000, 1_700_000_000, {"1": 55.0}), budget_mb=500)
    ('variables', 'constants take 1,465 MB more in a model server, and 500 are allowed')
    """
    faster = constants.images_per_s["1"] / variables.images_per_s["1"]
    if faster < _WORTH:
        return VARIABLES, (
            f"constants answer {faster:.2f} times the images at batch 1, and less than {_WORTH:g} "
            f"is not worth them"
        )
    more_mb = (constants.held - variables.held) / 1e6
    if more_mb > budget_mb:
        return VARIABLES, (
            f"constants take {more_mb:,.0f} MB more in a model server, and {budget_mb:,} are "
            f"allowed"
        )
    return CONSTANTS, (
        f"they answer {faster:.2f} times the images at batch 1, for {more_mb:,.0f} MB more in a "
        f"model server, of {budget_mb:,} allowed"
    )


def compare(
    variables: Path, constants: Path, asked: Trials, inputs: Arrays
) -> tuple[Measured, Measured]:
    """Of both SavedModels, of one graph each. Raises NotHeld."""
    held = [held_bytes(each, (SERVING_TAG,), asked) for each in (variables, constants)]
    with Session(variables) as ours, Session(constants) as theirs:
        speeds = images_per_s((ours, theirs), inputs, _ROUNDS)
    return (
        Measured(joining.bytes_of(variables), held[0], speeds[0]),
        Measured(joining.bytes_of(constants), held[1], speeds[1]),
    )


def _why_not_tried(second: Path) -> str | None:
    if not computes_bfloat16():
        return UNMEASURED
    # The file holds every graph of the version, and another may follow.
    size = (second.parent / SAVED_MODEL).stat().st_size
    size += joining.bytes_of(second) + (second / SAVED_MODEL).stat().st_size
    if size > _MOST_BYTES:
        return (
            f"as constants they would make {SAVED_MODEL} {size / 1e9:.1f} GB large, and "
            f"{_MOST_BYTES / 1e9:.1f} are the most that can be read"
        )
    return None


def _variables(because: str) -> Facts:
    return {"weights": {"in": VARIABLES, "because": because}}

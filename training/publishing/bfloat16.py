"""The second graph of a version: in bfloat16, where it answers as the first does."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import tensorflow as tf

from sluice.wire.contract import BFLOAT16_TAG, SERVING_TAG
from training.data.dataset import Arrays
from training.data.heads import Head
from training.publishing import joining, saved_model
from training.publishing.agreement import Limits, agreement, enough
from training.publishing.checks import described
from training.publishing.held_out import HeldOut
from training.publishing.saved_model import Session
from training.publishing.trials import Trials

TAGS = (SERVING_TAG, BFLOAT16_TAG)
BATCHES = (1, 8, 32)  # that images a second are said of
_STAGING = ".bf16"
_ROUNDS = 5

Facts = dict[str, Any]


@dataclass(frozen=True)
class Bfloat16:
    """What is asked of the second graph. samples: the rows that both are asked about, with true
    answers where they are known. limits: what they may differ by.

    >>> Bfloat16(HeldOut({"image": np.zeros((2, 8, 8, 1))}, {}, {}), Limits()).limits.drop
    0.2
    """

    samples: HeldOut
    limits: Limits


def add(
    staging: Path,
    write: Callable[[Path], object],
    heads: Mapping[str, Head],
    asked: Trials,
    wanted: Bfloat16,
) -> dict[str, Facts]:
    """A second graph into the SavedModel in `staging`, unless it answers otherwise.

    write: puts it into a directory of its own. asked: requests for each signature.
    Gives what metrics.json says of both, by their tags: of one that is left out, why it is
    `absent`.
    """
    second = staging / _STAGING
    samples, moved = enough(wanted.samples, heads)
    answers, speed = _tried(staging, samples.inputs)
    facts = {SERVING_TAG: {"bytes": joining.bytes_of(staging), "images_per_s": speed}}
    try:
        write(second)
        refusal = _signatures_refusal(staging, second) or _answers_refusal(second, asked)
        others, speed = _tried(second, samples.inputs)
    except (TypeError, ValueError, tf.errors.OpError) as error:
        return facts | _absent(second, f"the model cannot compute in it ({_first_line(error)})")
    found = agreement(heads, samples, answers, others, moved=moved)
    if refusal := refusal or found.refusal(wanted.limits):
        return facts | _absent(second, refusal)
    measured = {"bytes": joining.bytes_of(second), "images_per_s": speed, **found.facts()}
    joining.join(staging, second, TAGS)
    return facts | {",".join(TAGS): measured}


def _tried(directory: Path, inputs: Arrays) -> tuple[Arrays, dict[str, float]]:
    """Answers, and images a second."""
    with Session(directory) as session:
        return session.predict(inputs), _images_a_second(session, inputs)


def _absent(second: Path, why: str) -> dict[str, Facts]:
    joining.remove(second)
    return {",".join(TAGS): {"absent": why}}


def _signatures_refusal(first: Path, second: Path) -> str | None:
    """A client must notice nothing: the same names, dtypes and shapes."""
    ours, theirs = _described(first), _described(second)
    other = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
    return f"its signatures {', '.join(other)} are others" if other else None


def _described(directory: Path) -> dict[str, list[dict[str, str]]]:
    return {
        name: [
            {key: described(info) for key, info in side.items()}
            for side in (definition.inputs, definition.outputs)
        ]
        for name, definition in saved_model.signature_defs(directory).items()
    }


def _answers_refusal(second: Path, asked: Trials) -> str | None:
    """Every signature must answer, with numbers."""
    with Session(second) as session:
        for signature, trial in asked.items():
            rows = {name: array[:2] for name, array in trial.inputs.items()}
            for name, answer in session.run(signature, rows).items():
                if answer.dtype.kind == "f" and not np.isfinite(answer).all():
                    return f"{name} of {signature} is not finite"
    return None


def _images_a_second(session: Session, inputs: Arrays) -> dict[str, float]:
    """By batch, of `serving_default` on this machine: the median of some calls."""
    speeds = {}
    for batch in BATCHES:
        rows = {name: np.resize(array, (batch, *array.shape[1:])) for name, array in inputs.items()}
        seconds = []
        for _ in range(_ROUNDS + 1):  # the first one is the graph's own start
            began = time.perf_counter()
            session.predict(rows)
            seconds.append(time.perf_counter() - began)
        speeds[str(batch)] = round(batch / median(seconds[1:]), 1)
    return speeds


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__

"""More graphs of a version: in half precision, where they answer as the first one does."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from sluice.wire.contract import BFLOAT16_TAG, GPU_TAG, SERVING_TAG
from sluice.wire.processor import computes_bfloat16
from sluice.wire.saved_model import read_signatures
from training.data.dataset import Arrays
from training.data.heads import Head
from training.publishing import constants, joining
from training.publishing.agreement import Limits, agreement, enough
from training.publishing.checks import described
from training.publishing.held_out import HeldOut
from training.publishing.saved_model import Session
from training.publishing.speed import BATCHES, batch_of, images_per_s
from training.publishing.trials import Trials
from training.surroundings.disk import is_full

# What each computes in; the second is taken where the first does not answer as float32 does.
PRECISIONS = {BFLOAT16_TAG: ("bfloat16",), GPU_TAG: ("float16", "bfloat16")}
_STAGING = ".half"
_ASKING_SECONDS = 300  # of a graph: how many rows it is held against the first on
_ROWS = 32  # asked at once

Facts = dict[str, Any]
Write = Callable[[Path, str, str, bool], object]


@dataclass(frozen=True)
class HalfPrecision:
    """What is asked of them. tags: of PRECISIONS, which ones there are to be. samples: the rows
    that each is asked about, with true answers where they are known. limits: what they may differ
    by. constants_mb: MB of memory that a model server may hold more where the one in bfloat16 has
    its weights as constants; 0: it has them in variables.

    >>> HalfPrecision(["gpu"], HeldOut({"image": np.zeros((2, 8, 8, 1))}, {}, {})).limits.drop
    0.2
    """

    tags: Sequence[str]
    samples: HeldOut
    limits: Limits = field(default_factory=Limits)
    constants_mb: int = 0


def tags_asked(optimize: str) -> list[str]:
    """Of one of `sluice.wire.contract.OPTIMIZE`.

    >>> tags_asked("bf16,gpu"), tags_asked("none")
    (['bf16', 'gpu'], [])
    """
    return [tag for tag in optimize.split(",") if tag in PRECISIONS]


def key(tag: str) -> str:
    """What metrics.json calls the graph, and a model server is asked for it by.

    >>> key("bf16")
    'serve,bf16'
    """
    return f"{SERVING_TAG},{tag}"


def add(
    staging: Path, write: Write, heads: Mapping[str, Head], asked: Trials, wanted: HalfPrecision
) -> dict[str, Facts]:
    """Those of `wanted.tags` into the SavedModel in `staging` that answer as the graph there does.

    write: puts one into a directory, given that, its precision, what its weights are called, and
    whether they are constants.
    asked: requests for each signature.
    Gives what metrics.json says of each, the first one too: of one that is left out, why it is
    `absent`.
    """
    samples, moved = enough(wanted.samples, heads)
    with Session(staging) as session:
        answers = _answers(session, samples)
        own = {"bytes": joining.bytes_of(staging)} | _measured(session, samples)
    first = _First(staging, heads, asked, _cut(samples, answers), answers, moved)
    others = {key(tag): _first_that_agrees(first, tag, write, wanted) for tag in wanted.tags}
    return {SERVING_TAG: own, **others}


@dataclass(frozen=True)
class _First:
    """The graph in `staging`, and what it answers to `samples`."""

    staging: Path
    heads: Mapping[str, Head]
    asked: Trials
    samples: HeldOut
    answers: Arrays
    moved: bool


def _first_that_agrees(first: _First, tag: str, write: Write, wanted: HalfPrecision) -> Facts:
    """Of its precisions; in `instead_of` why those before it do not."""
    refused: dict[str, str] = {}
    for precision in PRECISIONS[tag]:
        facts = _try(first, tag, precision, write, wanted)
        if "absent" not in facts:
            break
        refused[precision] = facts["absent"]
    else:
        return {"absent": "; ".join(f"in {name} {why}" for name, why in refused.items())}
    return {"precision": precision} | ({"instead_of": refused} if refused else {}) | facts


def _try(first: _First, tag: str, precision: str, write: Write, wanted: HalfPrecision) -> Facts:
    """What is known of another graph, which is then one of the SavedModel, unless it is absent."""

    def written(directory: Path, *, constant: bool = False) -> Facts:
        try:
            write(directory, precision, f"{tag}_weights", constant)
            return _held_against(first, directory, tag, wanted.limits)
        except (AttributeError, TypeError, ValueError, tf.errors.OpError) as error:
            if is_full(error):
                raise
            return {"absent": f"the model cannot compute in it ({_first_line(error)})"}

    second = first.staging / _STAGING
    facts = written(second)
    if "absent" in facts:
        joining.remove(second)
        return facts
    if tag == BFLOAT16_TAG and wanted.constants_mb:
        facts = constants.choose(
            second,
            facts,
            partial(written, constant=True),
            first.asked,
            first.samples.inputs,
            wanted.constants_mb,
        )
    joining.join(first.staging, second, (SERVING_TAG, tag))
    return facts


def _held_against(first: _First, second: Path, tag: str, limits: Limits) -> Facts:
    if refusal := _signatures_refusal(first.staging, second):
        return {"absent": refusal}
    with Session(second) as session:
        if refusal := _answers_refusal(session, first.asked):
            return {"absent": refusal}
        others = _answers(session, first.samples)
        samples = _cut(first.samples, others)
        ours = {name: array[: len(samples)] for name, array in first.answers.items()}
        found = agreement(first.heads, samples, ours, others, moved=first.moved)
        if refusal := found.refusal(limits):
            return {"absent": refusal}
        measured = _measured(session, samples, unless=_why_not_measured(tag))
    return {"bytes": joining.bytes_of(second)} | measured | found.facts()


def _answers(session: Session, samples: HeldOut) -> Arrays:
    """To as many rows, from the first on, as are answered in _ASKING_SECONDS: without instructions
    for a precision it takes several times as long."""
    until, found = time.monotonic() + _ASKING_SECONDS, []
    for start in range(0, len(samples), _ROWS):
        rows = {name: each[start : start + _ROWS] for name, each in samples.inputs.items()}
        found.append(session.predict(rows))
        if time.monotonic() > until:
            break
    return {name: np.concatenate([each[name] for each in found]) for name in found[0]}


def _cut(samples: HeldOut, answers: Arrays) -> HeldOut:
    """The samples that were answered."""
    rows = len(next(iter(answers.values())))
    inputs, targets = (
        {name: array[:rows] for name, array in side.items()}
        for side in (samples.inputs, samples.targets)
    )
    return HeldOut(inputs, targets, samples.labels)


def _why_not_measured(tag: str) -> str | None:
    if tag == GPU_TAG:
        return "it is for GPUs, and was tried on the CPU"
    if not computes_bfloat16():
        return constants.UNMEASURED
    return None


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
        for name, definition in read_signatures(directory).items()
    }


def _answers_refusal(session: Session, asked: Trials) -> str | None:
    """Every signature must answer, with numbers."""
    for signature, trial in asked.items():
        rows = {name: array[:2] for name, array in trial.inputs.items()}
        for name, answer in session.run(signature, rows).items():
            if answer.dtype.kind == "f" and not np.isfinite(answer).all():
                return f"{name} of {signature} is not finite"
    return None


def _measured(session: Session, samples: HeldOut, unless: str | None = None) -> Facts:
    """The memory of a call, and images a second, by batch, of `serving_default` on this machine."""
    memory = {"memory": session.memory(batch_of(samples.inputs, BATCHES[-1]))}
    if unless:
        return memory | {"unmeasured": unless}
    [speeds] = images_per_s([session], samples.inputs)
    return memory | {"images_per_s": speeds}


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__

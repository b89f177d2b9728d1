"""What is counted of an answer, and of two versions' answers to one request, as evidence."""

from collections.abc import Mapping, Sequence

import numpy as np

from service.replay.changes import Change, Reply, are_scores
from service.rollout.evidence import NOVEL, SCORE_BINS, SLOWER, Answers, Evidence
from sluice.wire.contract import NOVELTY
from sluice.wire.novelty import readings
from sluice.wire.tensors import Array


def count(answers: Answers, seconds: float, outputs: Mapping[str, Array]) -> None:
    """One answer that took so long."""
    answers.add(seconds)
    if NOVELTY in outputs:
        told = readings([outputs[NOVELTY]])
        answers.told += bool(told)
        answers.novel += bool(told) and bool(np.median(told) > NOVEL)


def count_pair(
    evidence: Evidence, live: Reply | None, ours: Reply, found: Sequence[Change], *, timed: bool
) -> None:
    """One request, what the live version and the next one replied to it, and the changes between
    the two. `live` is None where it had answered before, and is not asked again. `timed`: whether
    both were asked alike, so that the times say something.

    >>> evidence = Evidence("a")
    >>> live = Reply({"label": np.float32([[0.9, 0.1]])}, 1, seconds=0.01)
    >>> ours = Reply({"label": np.float32([[0.75, 0.25]])}, 2, seconds=0.03)
    >>> count_pair(evidence, live, ours, [], timed=True)
    >>> evidence.pairs, evidence.timed, evidence.slower, evidence.shadow_next.scores[15]
    (1, 1, 1, 1)
    """
    evidence.pairs += 1
    evidence.changed += bool(found)
    for kind in {change.kind for change in found}:
        evidence.changes[kind] = evidence.changes.get(kind, 0) + 1
    _count_side(evidence.shadow_next, ours)
    if live is None:
        return
    _count_side(evidence.shadow_live, live)
    if timed and not (live.error or ours.error):
        evidence.timed += 1
        evidence.slower += ours.seconds > SLOWER * live.seconds
        evidence.faster += live.seconds > SLOWER * ours.seconds


def _count_side(answers: Answers, reply: Reply) -> None:
    if reply.error:
        answers.fail()
        return
    count(answers, reply.seconds, reply.outputs)
    for _, array in sorted(reply.outputs.items()):  # of a message in any order
        if array.dtype.kind in "fV" and are_scores(array):
            best = array.astype(np.float64).max(axis=1)
            answers.scores[min(int(np.median(best) * SCORE_BINS), SCORE_BINS - 1)] += 1
            return

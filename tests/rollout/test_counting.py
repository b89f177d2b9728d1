"""What counts of an answer: a request once, however many rows it has."""

import numpy as np
import pytest

from service.replay.changes import Reply
from service.rollout.counting import count, count_pair
from service.rollout.evidence import Answers, Evidence
from sluice.wire.contract import NOVELTY


def rows(*counts: tuple[int, float]) -> np.ndarray:
    """So many of each value."""
    return np.float32([value for number, value in counts for _ in range(number)])


@pytest.mark.parametrize(
    ("novelty", "told", "novel"),
    [
        (rows((64, 3.0)), 1, 1),
        (rows((31, 3.0), (33, 0.2)), 1, 0),
        (rows((33, np.nan), (31, 0.2)), 1, 1),
        (rows(), 0, 0),
        (np.array([b"new"], object), 0, 0),
    ],
)
def test_a_request_is_novel_once_by_its_median_row(novelty, told, novel) -> None:
    answers = Answers()
    count(answers, 0.01, {NOVELTY: novelty})
    assert (answers.requests, answers.told, answers.novel) == (1, told, novel)


def test_a_request_is_unsure_once_by_its_median_row_and_first_head() -> None:
    evidence = Evidence("a")
    best = rows((3, 0.92), (2, 0.53))
    outputs = {
        "digit_scores": np.stack([best, 1 - best], axis=1),
        "parity_scores": np.float32([[0.5, 0.5]] * 5),
    }
    for version in (1, 2):
        live, ours = Reply(outputs, 1, 0.01), Reply(outputs, version, 0.01)
        count_pair(evidence, live, ours, [], timed=False)
    for side in (evidence.shadow_live, evidence.shadow_next):
        assert (sum(side.scores), side.scores[18]) == (2, 2)


def test_the_first_head_is_the_same_in_whatever_order_the_outputs_come() -> None:
    outputs = {"b": np.float32([[0.5, 0.5]]), "a": np.float32([[0.92, 0.08]])}
    live, ours = Reply(outputs, 1, 0.01), Reply(dict(sorted(outputs.items())), 2, 0.01)
    evidence = Evidence("a")
    count_pair(evidence, live, ours, [], timed=False)
    assert evidence.shadow_live.scores == evidence.shadow_next.scores
    assert evidence.shadow_live.scores[18] == 1

"""Answers by Classify as arrays: what the version has given of them, and what that shows."""

import pytest

from service.replay.answers import outputs_of
from service.replay.changes import Kind, Reply, Tolerance, changes
from sluice.wire.protos.serving_pb2 import ClassificationResponse, MultiInferenceResponse

LABELS = [("cat", 0.0), ("dog", 0.0)]  # of a model that gives no scores
SCORES = [("", 0.75), ("", 0.25)]  # of one that gives no labels
BOTH = [("cat", 0.75), ("dog", 0.25)]


def classified(row: list[tuple[str, float]]) -> ClassificationResponse:
    answer = ClassificationResponse()
    classes = answer.result.classifications.add().classes
    for label, score in row:
        classes.add(label=label, score=score)
    return answer


def reply(row: list[tuple[str, float]]) -> Reply:
    return Reply(outputs_of(classified(row)), 1, 0.01)


@pytest.mark.parametrize(
    ("row", "names"),
    [
        (BOTH, {"label_classes", "label_scores"}),
        (LABELS, {"label_classes"}),
        (SCORES, {"label_scores"}),
    ],
    ids=["both", "labels", "scores"],
)
def test_what_a_version_gives_is_compared_and_nothing_else(row, names) -> None:
    multi = MultiInferenceResponse()
    multi.results.add().model_spec.signature_name = "label"
    multi.results[0].classification_result.CopyFrom(classified(row).result)
    assert outputs_of(classified(row)).keys() == outputs_of(multi).keys() == names
    assert changes(reply(row), reply(row), Tolerance()) == []


def test_of_labels_alone_another_first_one_is_another_answer() -> None:
    found = changes(reply(LABELS), reply(LABELS[::-1]), Tolerance())
    assert [each.kind for each in found] == [Kind.VALUE]


def test_of_scores_alone_the_best_of_another_place_is_another_class() -> None:
    found = changes(reply(SCORES), reply(SCORES[::-1]), Tolerance())
    assert [each.kind for each in found] == [Kind.CLASS, Kind.SCORE]

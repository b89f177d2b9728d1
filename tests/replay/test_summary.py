"""Counts and intervals over many requests."""

import math
from pathlib import Path

import numpy as np
import pytest

from service.captures import Captured
from service.replay.changes import Change, Kind, Reply
from service.replay.summary import WORST, Case, Summary, median, wilson
from sluice.wire.model_ref import ModelRef
from sluice.wire.prediction_logs import PREDICT_LOG, Logged
from sluice.wire.protos.serving_pb2 import PredictRequest

CAPTURED = Captured(
    Path("a.tfrecord"), 1, 9, Logged(PREDICT_LOG, PredictRequest(), ModelRef("m"), "", 1, 0)
)


def case(*changes: Change, seconds: tuple[float, float] = (0.01, 0.02)) -> Case:
    was, now = (Reply({}, 1, each) for each in seconds)
    return Case(CAPTURED, was, now, changes)


def test_a_request_counts_once_for_each_kind() -> None:
    summary = Summary()
    summary.add(case(Change(Kind.CLASS, "a"), Change(Kind.CLASS, "b"), Change(Kind.SCORE, "c")))
    summary.add(case())
    assert (summary.requests, summary.changed) == (2, 1)
    assert summary.by_kind == {Kind.CLASS: 1, Kind.SCORE: 1}
    assert summary.share(Kind.CLASS).estimate == summary.share().estimate == 0.5


def test_the_worst_are_kept_the_largest_first() -> None:
    summary = Summary()
    sizes = np.random.default_rng(5).permutation(100).tolist()
    for size in sizes:
        summary.add(case(Change(Kind.SCORE, str(size), size)))
    kept = [int(each.changes[0].what) for each in summary.worst(Kind.SCORE)]
    assert kept == list(range(99, 99 - WORST, -1))
    assert summary.worst(Kind.CLASS) == []


def test_of_equally_large_changes_the_first_stay() -> None:
    summary = Summary()
    for number in range(100):
        summary.add(case(Change(Kind.SHAPE, str(number))))
    assert [each.changes[0].what for each in summary.worst(Kind.SHAPE)] == [*map(str, range(WORST))]


def test_times_are_compared_request_by_request() -> None:
    summary = Summary()
    for seconds in (0.001, 0.1, 10.0):
        summary.add(case(seconds=(seconds, 2 * seconds)))
    assert summary.slowdown().estimate == pytest.approx(2)
    assert summary.milliseconds(50) == pytest.approx((100, 200))


def test_the_time_of_an_error_is_not_that_of_an_answer() -> None:
    summary = Summary()
    refused = Reply({}, None, 0.5, "INTERNAL", "")
    summary.add(Case(CAPTURED, Reply({}, 1, 0.01), refused, [Change(Kind.ERROR, "x")]))
    assert math.isnan(summary.slowdown().estimate)
    assert math.isnan(summary.milliseconds(50)[0])


@pytest.mark.parametrize("share", [0.002, 0.1, 0.5])
def test_the_interval_holds_the_truth_as_often_as_it_says(share: float) -> None:
    hits = np.random.default_rng(7).binomial(2000, share, 2000)
    held = [wilson(int(each), 2000).low <= share <= wilson(int(each), 2000).high for each in hits]
    assert 0.93 < np.mean(held) <= 1


def test_the_median_lies_within_its_interval_as_often_as_it_says() -> None:
    draws = np.random.default_rng(11).exponential(size=(2000, 101))
    held = [median(each.tolist()) for each in draws]
    assert 0.93 < np.mean([each.low <= math.log(2) <= each.high for each in held]) <= 1

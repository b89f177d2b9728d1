"""Tests that may be looked at after every request: how often they are wrong, how soon right."""

import math

import numpy as np
import pytest

from service.rollout.sequential import Comparison, Rate, enough

ALPHA = 0.05
CASES, LOOKS, BATCH = 300, 40, 10
# What the promise allows to be wrong, and three deviations of so many cases.
WRONG = CASES * ALPHA + 3 * math.sqrt(CASES * ALPHA * (1 - ALPHA))


def first_look(test: Rate | Comparison, looks) -> int | None:
    """After how many looks the test says "too often"; None where it never does."""
    for number, batch in enumerate(looks, 1):
        test.add(*batch)
        if test.too_often >= enough(ALPHA):
            return number
    return None


def batches_of_hits(seed: int, rate: float):
    return np.random.default_rng(seed).binomial(BATCH, rate, (CASES, LOOKS)).tolist()


@pytest.mark.parametrize("allowed", [0.002, 0.05, 0.5])
def test_what_is_just_allowed_is_seldom_told_of_whenever_one_looks(allowed) -> None:
    looks = [
        first_look(Rate(allowed), ((hits, BATCH) for hits in case))
        for case in batches_of_hits(3, allowed)
    ]
    assert sum(look is not None for look in looks) <= WRONG


@pytest.mark.parametrize("allowed", [0.05, 0.5])
def test_what_is_just_not_seldom_is_seldom_told_to_be(allowed) -> None:
    wrong = 0
    for case in batches_of_hits(4, allowed):
        rate, most = Rate(allowed), 0.0
        for hits in case:
            rate.add(hits, BATCH)
            most = max(most, rate.seldom)
        wrong += most >= enough(ALPHA)
    assert wrong <= WRONG


@pytest.mark.parametrize("share", [0.01, 0.5])
@pytest.mark.parametrize("rate", [0.02, 0.3])
def test_two_groups_that_are_alike_are_seldom_told_apart(share, rate) -> None:
    chance, wrong = np.random.default_rng(5), 0
    for _ in range(CASES):
        ours = chance.binomial(40, share, size=LOOKS)
        looks = (
            (chance.binomial(n, rate), n, chance.binomial(40 - n, rate), 40 - n)
            for n in ours.tolist()
        )
        wrong += first_look(Comparison(1.0), looks) is not None
    assert wrong <= WRONG


def test_twice_as_many_are_soon_told_of() -> None:
    chance = np.random.default_rng(6)
    looks = [
        first_look(Rate(0.05), ((int(hit), 1) for hit in chance.random(1500) < 0.1))
        for _ in range(40)
    ]
    assert None not in looks
    assert np.median(looks) < 300


def test_a_group_that_fails_thrice_as_often_is_told_of_though_few_are_in_it() -> None:
    chance = np.random.default_rng(7)
    batches = ((chance.binomial(10, 0.15), 10, chance.binomial(90, 0.05), 90) for _ in range(100))
    assert first_look(Comparison(1.0), batches) is not None


def test_what_may_never_happen_is_told_of_at_once() -> None:
    never = Rate(0.0)
    never.add(0, 10_000)
    assert (never.too_often, never.seldom) == (0.0, 0.0)
    never.add(1, 1)
    assert never.too_often == math.inf


def test_what_may_always_happen_is_never_told_of() -> None:
    always = Rate(1.0)
    always.add(100, 100)
    assert (always.too_often, always.seldom) == (0.0, 0.0)


def test_nothing_seen_says_nothing() -> None:
    unasked = Comparison(2.0)
    unasked.add(0, 0, 5, 100)
    unasked.add(5, 100, 0, 0)
    assert (unasked.too_often, Rate(0.1).too_often, Rate(0.1).seldom) == (0.0, 0.0, 0.0)


def test_none_in_a_thousand_shows_that_it_is_seldom() -> None:
    seldom = Rate(0.01)
    seldom.add(0, 1000)
    assert seldom.seldom > enough(0.005)
    assert seldom.too_often < 0

"""Tests that may be looked at after every request: how often they are wrong, how soon right."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.rollout.sequential import Balance, Comparison, Rate, enough

ALPHA = 0.05
CASES, LOOKS, BATCH = 300, 40, 10
# What the promise allows to be wrong, and three deviations of so many cases.
WRONG = CASES * ALPHA + 3 * math.sqrt(CASES * ALPHA * (1 - ALPHA))


def first_look(test: Rate | Comparison | Balance, looks) -> int | None:
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


def times_compared(seed: int, slowness: float, noise: float, cases: int):
    """Of each case, by look: of BATCH pairs of times, in how many the second is over 1.5 times the
    first, and the first the second; the deviation of a time's logarithm is `noise`."""
    first, second = np.random.default_rng(seed).lognormal(0, noise, (2, cases, LOOKS, BATCH))
    ratios = slowness * second / first
    counts = (ratios > 1.5).sum(2), (ratios < 1 / 1.5).sum(2), np.full((cases, LOOKS), BATCH)
    return np.stack(counts, 2).tolist()


@given(
    allowed=st.floats(0.05, 0.9),
    drawn=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_bettor_at_odds_that_are_fair_gains_nothing_on_average(allowed, drawn, seed) -> None:
    """All that the promise rests on: where exactly as much happens as is allowed, one trial more
    leaves the mean of the odds (whose logarithm the evidence is) as it was."""
    less = drawn * (1 - allowed) / 2
    shares = {(1, 0): allowed + less, (0, 1): less, (0, 0): 1 - allowed - 2 * less}
    before = np.random.default_rng(seed).integers(0, 20, 2).tolist()
    for side in ("too_often", "seldom"):
        now = math.exp(getattr(Balance(allowed, *before, 40), side))
        after = sum(
            share * math.exp(getattr(Balance(allowed, before[0] + up, before[1] + down, 41), side))
            for (up, down), share in shares.items()
        )
        assert after == pytest.approx(now)


@pytest.mark.parametrize("noise", [0.3, 2.0])
def test_what_noise_does_to_both_alike_is_seldom_told_of(noise) -> None:
    """Whether machines are quiet or busy."""
    looks = [first_look(Balance(0.05), case) for case in times_compared(8, 1.0, noise, CASES)]
    assert sum(look is not None for look in looks) <= WRONG


@pytest.mark.parametrize(("noise", "looks"), [(0.05, 4), (0.3, 6), (0.6, 20)])
def test_twice_as_slow_is_soon_told_of_and_as_quick_shown(noise, looks) -> None:
    """In so many looks at BATCH pairs, half of the cases."""
    slow = [first_look(Balance(0.3), case) for case in times_compared(9, 2.0, noise, 40)]
    assert np.median([LOOKS if look is None else look for look in slow]) <= looks
    for case in times_compared(10, 1.0, noise, 40):
        quick = Balance(0.3)
        for counts in case:
            quick.add(*counts)
        assert quick.seldom >= enough(ALPHA)


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


@pytest.mark.parametrize("always", [Rate(1.0, 100, 100), Balance(1.0, 100, 0, 100)])
def test_what_may_always_happen_is_never_told_of(always) -> None:
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

"""Tests that may be looked at after every request, as often as one likes, and still hold.

Each keeps how many times likelier what was seen is under "too often" than under "as often as is
allowed": a mixture of likelihood ratios, one for each of `TIMES`. Where no more happens than is
allowed, its mean never rises over 1, so that it ever comes to 1/alpha in a share alpha of all
cases at the most (J. Ville, 1939, "Étude critique de la notion de collectif"). Mixed likelihood
ratios: H. Robbins, 1970, "Statistical methods related to the law of the iterated logarithm"; for
versions of a service that are compared: R. Johari, P. Koomen, L. Pekelis, D. Walsh, 2022, "Always
valid inference: continuous monitoring of A/B tests".

All evidence is a natural logarithm: 0 says nothing, `log(200)` that one case in 200 is as odd.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# How many times as high the odds may be, where more happens than is allowed: 1.4 to 256.
TIMES: Floats = np.exp2(np.arange(1, 17) / 2)
STAKES: Floats = np.exp2(-np.arange(1, 9) / 2)  # of the most that a bettor can stake: 0.7 to 0.06


def enough(alpha: float, tests: int = 1) -> float:
    """The evidence that one of so many tests must bring, for all to be wrong in a share `alpha`
    of all cases at the most.

    >>> round(math.exp(enough(0.005)))
    200
    """
    return math.log(tests / alpha)


@dataclass
class Rate:
    """How often something happens, and whether that is more or less than a share `allowed`.

    >>> twice = Rate(allowed=0.05)
    >>> twice.add(hits=40, trials=400)
    >>> twice.too_often > enough(0.05), twice.seldom > 0
    (True, False)
    """

    allowed: float
    hits: int = 0
    trials: int = 0

    def add(self, hits: int, trials: int) -> None:
        self.hits += hits
        self.trials += trials

    @property
    def too_often(self) -> float:
        """Evidence against "a share `allowed` of the trials at the most". Where none is allowed,
        one hit is all the evidence there can be; where all are, there is none.
        """
        if not self.allowed:
            return math.inf if self.hits else 0.0
        return self._evidence(TIMES)

    @property
    def seldom(self) -> float:
        """Evidence against "a share `allowed` of the trials at the least"."""
        return self._evidence(np.append(1 / TIMES, 0.0))

    def _evidence(self, times: Floats) -> float:
        if self.allowed in (0, 1):
            return 0.0
        odds = times * self.allowed / (1 - self.allowed)
        shares = odds / (1 + odds)
        return _mixture(
            _times_log(self.hits, shares / self.allowed)
            + _times_log(self.trials - self.hits, (1 - shares) / (1 - self.allowed))
        )


@dataclass
class Comparison:
    """Whether something happens more often in one group than `allowed` times as often as in another
    that is asked at the same time: which of the two each hit belongs to is chance, and the chance
    is known from how many trials each group had.

    Trials come in batches, whose shares may differ. That no trial is hit twice makes the evidence
    smaller than it might be, never larger. The test for one batch: J. Przyborowski and
    H. Wilenski, 1940, "Homogeneity of results in testing samples from Poisson series".

    >>> errors = Comparison(allowed=1.0)
    >>> errors.add(hits=9, trials=100, other_hits=9, other_trials=900)
    >>> errors.too_often > enough(0.01)
    True
    """

    allowed: float
    logs: Floats = field(default_factory=lambda: np.zeros_like(TIMES))

    def add(self, hits: int, trials: int, other_hits: int, other_trials: int) -> None:
        """One batch. Of one in which a group was not asked at all nothing can be told."""
        if not trials or not other_trials:
            return
        odds = self.allowed * trials / other_trials
        share, shares = odds / (1 + odds), TIMES * odds / (1 + TIMES * odds)
        self.logs += _times_log(hits, shares / share)
        self.logs += _times_log(other_hits, (1 - shares) / (1 - share))

    @property
    def too_often(self) -> float:
        """Evidence against "`allowed` times as often as in the other group at the most"."""
        return _mixture(self.logs)


@dataclass
class Balance:
    """Whether something comes out `more` than otherwise, by more than a share `allowed` of the
    trials more often than it comes out `less`. What noise does to both alike is no evidence,
    however much of it there is.

    The evidence is what a bettor has made of 1 who stakes a part of it on each trial, at odds that
    are fair where the share is `allowed`: I. Waudby-Smith, A. Ramdas, 2023, "Estimating means of
    bounded random variables by betting".

    >>> times = Balance(allowed=0.3)
    >>> times.add(more=60, less=5, trials=80)
    >>> times.too_often > enough(0.005), times.seldom > 0
    (True, False)
    """

    allowed: float
    more: int = 0
    less: int = 0
    trials: int = 0

    def add(self, more: int, less: int, trials: int) -> None:
        self.more += more
        self.less += less
        self.trials += trials

    @property
    def too_often(self) -> float:
        """Evidence against "a share `allowed` of the trials at the most"."""
        return self._evidence(1)

    @property
    def seldom(self) -> float:
        """Evidence against "a share `allowed` of the trials at the least"."""
        return self._evidence(-1)

    def _evidence(self, side: int) -> float:
        if self.allowed == 1:
            return 0.0
        gains = side * (np.array([1.0, 0.0, -1.0]) - self.allowed)
        stakes = STAKES / -gains.min()
        counts = np.array([self.more, self.trials - self.more - self.less, self.less])
        return _mixture(np.log1p(np.outer(stakes, gains)) @ counts)


def _times_log(count: int, ratios: Floats) -> Floats:
    """count · log(ratios), where nothing seen says nothing of what is impossible."""
    if not count:
        return np.zeros_like(ratios)
    with np.errstate(divide="ignore"):
        return count * np.log(ratios)


def _mixture(logs: Floats) -> float:
    """The logarithm of the mean of what has these logarithms."""
    largest = float(logs.max())
    return largest + math.log(float(np.exp(logs - largest).mean()))

"""Images a second of graphs, on the machine that publishes them."""

import time
from collections.abc import Sequence
from statistics import median

import numpy as np

from training.data.dataset import Arrays
from training.publishing.saved_model import Session

BATCHES = (1, 8, 32)  # that images a second are said of
_ROUNDS = 5
_ROUNDS_SECONDS = 10  # of a batch and a graph: two calls at the least


def batch_of(inputs: Arrays, rows: int) -> Arrays:
    """So many of them, from the first on, repeated where there are fewer.

    >>> batch_of({"image": np.array([1, 2])}, 3)
    {'image': array([1, 2, 1])}
    """
    return {name: np.resize(array, (rows, *array.shape[1:])) for name, array in inputs.items()}


def images_per_s(
    sessions: Sequence[Session], inputs: Arrays, rounds: int = _ROUNDS
) -> list[dict[str, float]]:
    """Of each session's `serving_default`, by batch: the median of some calls. They are asked in
    turn, so that what else the machine does falls on all alike.

    >>> images_per_s([], {"image": np.zeros((1, 8, 8, 1))})
    []
    """
    speeds: list[dict[str, float]] = [{} for _ in sessions]
    for batch in BATCHES if sessions else ():
        asked = batch_of(inputs, batch)
        for found, seconds in zip(speeds, _in_turn(sessions, asked, rounds), strict=True):
            found[str(batch)] = float(f"{batch / median(seconds):.4g}")
    return speeds


def _in_turn(sessions: Sequence[Session], asked: Arrays, rounds: int) -> list[list[float]]:
    """Seconds of each call."""
    for session in sessions:
        session.predict(asked)  # the graph's own start
    seconds: list[list[float]] = [[] for _ in sessions]
    while len(seconds[0]) < rounds and sum(seconds[0]) < _ROUNDS_SECONDS:
        for session, spent in zip(sessions, seconds, strict=True):
            began = time.perf_counter()
            session.predict(asked)
            spent.append(time.perf_counter() - began)
    return seconds

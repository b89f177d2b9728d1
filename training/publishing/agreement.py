"""Two graphs of one model, asked about the same rows: how often and where they differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sluice.wire.tensors import Array
from training.data.dataset import Arrays
from training.data.heads import Head, naming
from training.publishing.comparison import Figure, measure_of, measured
from training.publishing.held_out import HeldOut

ENOUGH = 2000  # rows: of fewer, one more mistake is a fall of a point
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Limits:
    """What a graph may differ by: drop: points of 100 of a measure; margin: of the probabilities of
    the two best classes, where the best is another.

    >>> Limits()
    Limits(drop=0.2, margin=0.1)
    """

    drop: float = 0.2
    margin: float = 0.1


@dataclass(frozen=True)
class Agreement:
    """rows: asked; moved: whether some are others moved by a pixel. figures: by head that has true
    answers, `live` the first graph's, `new` the second's. same: by head that names classes, the
    share of rows of the same class. margin: the largest where it is another, 0 where none is.

    >>> figures = [Figure("label", "accuracy", live=0.9, new=0.89)]
    >>> Agreement(2000, False, figures, {"label": 0.98}, 0.05).refusal(Limits())
    'label accuracy falls by 1.00 points, from 90.00% to 89.00%, and 0.2 are allowed'
    """

    rows: int
    moved: bool
    figures: Sequence[Figure]
    same: Mapping[str, float]
    margin: float

    def refusal(self, limits: Limits) -> str | None:
        """Why the second graph is not to be served; None where it is."""
        for each in self.figures:
            drop = 100 * (each.live - each.new)
            if not drop <= limits.drop + _ROUNDING:
                return (
                    f"{each.head} {each.measure} falls by {drop:.2f} points, from {each.live:.2%} "
                    f"to {each.new:.2%}, and {limits.drop:g} are allowed"
                )
        if not self.margin <= limits.margin + _ROUNDING:
            return (
                f"a row gets another class though the first was ahead by {self.margin:.3f}, and "
                f"{limits.margin:g} is allowed"
            )
        return None

    def facts(self) -> dict[str, Any]:
        """As metrics.json has it.

        >>> Agreement(2000, True, [], {"label": 1.0}, 0.0).facts()
        {'rows': 2000, 'moved': True, 'measures': {}, 'agreement': {'label': 1.0}, 'margin': 0.0}
        """
        return {
            "rows": self.rows,
            "moved": self.moved,
            "measures": {
                each.head: {"measure": each.measure, "serve": each.live, "this": each.new}
                for each in self.figures
            },
            "agreement": dict(self.same),
            "margin": self.margin,
        }


def agreement(
    heads: Mapping[str, Head], samples: HeldOut, first: Arrays, second: Arrays, *, moved: bool
) -> Agreement:
    """Of the answers of two graphs to `samples`, by head.

    >>> from training.data.heads import Classes
    >>> heads, rows = {"label": Classes(("cat", "dog"))}, {"image": np.zeros((2, 1))}
    >>> samples = HeldOut(rows, {"label": np.array([0, 1])}, {"label": ("cat", "dog")})
    >>> first = {"label": np.array([[0.9, 0.1], [0.49, 0.51]])}
    >>> second = {"label": np.array([[0.9, 0.1], [0.51, 0.49]])}
    >>> found = agreement(heads, samples, first, second, moved=False)
    >>> found.same, round(found.margin, 2)
    ({'label': 0.5}, 0.02)
    """
    same, margin = {}, 0.0
    for name, head in naming(heads).items():
        scores, others = (_probabilities(head, each[name]) for each in (first, second))
        differs = scores.argmax(-1) != others.argmax(-1)
        best = np.sort(scores, axis=-1)
        same[name] = float(1 - differs.mean())
        margin = max(margin, float((best[:, -1] - best[:, -2])[differs].max(initial=0)))
        if not np.isfinite(others).all():
            margin = float("nan")
    figures = [
        Figure(
            name,
            measure_of(head),
            *(measured(head, head.labels, samples, name, each[name]) for each in (first, second)),
        )
        for name, head in heads.items()
        if name in samples.targets
    ]
    figures += [
        Figure(name, "r2 against serve", live=1.0, new=_explained(first[name], second[name]))
        for name in first
        if name not in samples.targets and name not in same
    ]
    return Agreement(len(samples), moved, figures, same, margin)


def _explained(first: Array, second: Array) -> float:
    """The share of what is in `first` that `second` says too: of what nobody knows the truth of."""
    error = np.mean(np.square(first.astype(float) - second))
    return float(1 - error / max(np.var(first.astype(float)), _ROUNDING))


def enough(samples: HeldOut, heads: Mapping[str, Head]) -> tuple[HeldOut, bool]:
    """The samples, where they are fewer than ENOUGH joined by the same moved by a pixel and two,
    and whether they are. A mask would have to move too: those stay as few as they are.

    >>> from training.data.heads import Classes
    >>> rows = {"image": np.zeros((500, 8, 8, 1), np.uint8)}
    >>> more, moved = enough(HeldOut(rows, {}, {}), {"label": Classes(("cat", "dog"))})
    >>> len(more), moved
    (2000, True)
    """
    movable = all(array.ndim == 4 and array.dtype == np.uint8 for array in samples.inputs.values())
    if len(samples) >= ENOUGH or not movable or heads.keys() != naming(heads).keys():
        return samples, False
    steps = [(y, x) for y in range(-2, 3) for x in range(-2, 3)]
    steps.sort(key=lambda step: max(map(abs, step)))  # as it is, by one pixel, by two
    copies = steps[: -(-ENOUGH // len(samples))]
    return (
        replace(
            samples,
            inputs={
                name: np.concatenate([_moved(array, *step) for step in copies])[:ENOUGH]
                for name, array in samples.inputs.items()
            },
            targets={
                name: np.concatenate([array] * len(copies))[:ENOUGH]
                for name, array in samples.targets.items()
            },
        ),
        True,
    )


def _moved(images: Array, down: int, right: int) -> Array:
    """[N, H, W, C], what comes in at an edge as that edge is."""
    _, height, width, _ = images.shape
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    moved: Array = images[:, rows][:, :, columns]
    return moved


def _probabilities(head: Any, output: Array) -> Array:
    return np.asarray(head.probabilities(output), np.float32)

"""What is another answer: two versions' replies to one request, compared output by output."""

import math
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from sluice.client._pixels import is_mask
from sluice.wire.contract import CLASSES_SUFFIX, SCORES_SUFFIX
from sluice.wire.signature import dtype_name, shape_text
from sluice.wire.tensors import Array

# Two sums of the same numbers in another order differ by less: no class is another one for it.
NOISE = 1e-5


class Reply(NamedTuple):
    """What a side said: `outputs` by name, batch first, or the gRPC status in `error` and why."""

    outputs: Mapping[str, Array]
    version: int | None
    seconds: float
    error: str = ""
    reason: str = ""


class Kind(StrEnum):
    """Kinds of change, the worst first."""

    ERROR = "error"  # where there was an answer
    NAN = "no number"  # where there was one
    SHAPE = "shape"  # other outputs, or others in shape or dtype
    CLASS = "class"  # another best class
    MASK = "mask"  # less overlap than asked for
    VALUE = "value"  # of what is neither class, score nor mask
    SCORE = "score"  # beyond the tolerance
    ANSWER = "answer"  # where there was an error


class Tolerance(NamedTuple):
    """How far a score may be off, or any other number as a share of the largest beside it; and how
    much of two masks has to be the same at the least: the intersection over the union."""

    score: float = 0.01
    overlap: float = 0.95


class Change(NamedTuple):
    """`size`: how large, to sort those of one kind by. `row`: of the request, where it is one's."""

    kind: Kind
    what: str
    size: float = 1.0
    row: int | None = None

    def __str__(self) -> str:
        return self.what if self.row is None else f"row {self.row}: {self.what}"


def changes(before: Reply, after: Reply, tolerance: Tolerance) -> list[Change]:
    """Of each kind and output the largest; [] where the answers are as good as the same.

    >>> import numpy as np
    >>> was = Reply({"label": np.float32([[0.9, 0.1]])}, 1, 0.01)
    >>> now = Reply({"label": np.float32([[0.2, 0.8]])}, 2, 0.01)
    >>> [str(each) for each in changes(was, now, Tolerance())]
    ['row 0: label: class 0 (0.9000) is class 1 (0.8000)', 'row 0: label: a score is off by 0.7']
    """
    if before.error or after.error:
        return list(_of_errors(before, after))
    was, now = before.outputs, after.outputs
    found = list(_of_forms(was, now))
    both = [name for name in was if _form(was[name]) == _form(now.get(name))]
    heads = [
        name.removesuffix(CLASSES_SUFFIX)
        for name in both
        if name.endswith(CLASSES_SUFFIX) and _are_labels(name.removesuffix(CLASSES_SUFFIX), was)
    ]
    labelled = {f"{head}{end}" for head in heads for end in (CLASSES_SUFFIX, SCORES_SUFFIX)}
    for head in heads:
        if head + SCORES_SUFFIX in both:
            found += _of_labels(head, was, now, tolerance)
    for name in both:
        if name in heads and was[name].dtype.kind in "fV":
            found += _of_scores(name, was[name], now[name], tolerance)
        elif name not in labelled:
            found += _of_arrays(name, was[name], now[name], tolerance)
    return sorted(found, key=lambda change: [*Kind].index(change.kind))


def _of_errors(before: Reply, after: Reply) -> Iterator[Change]:
    if before.error == after.error:
        return
    if not after.error:
        yield Change(Kind.ANSWER, f"{before.error} ({before.reason}) is answered")
    else:
        was = f", where it was {before.error}" if before.error else ""
        yield Change(Kind.ERROR, f"{after.error} ({after.reason}){was}")


def _of_forms(before: Mapping[str, Array], after: Mapping[str, Array]) -> Iterator[Change]:
    for name in sorted(before.keys() | after.keys()):
        forms = [_form(arrays.get(name)) for arrays in (before, after)]
        if forms[0] != forms[1]:
            yield Change(Kind.SHAPE, f"{name}: {forms[0]} is {forms[1]}")


def _form(array: Array | None) -> str:
    return "none" if array is None else f"{dtype_name(array.dtype)} {shape_text(array.shape)}"


def _are_labels(head: str, outputs: Mapping[str, Array]) -> bool:
    """Whether its classes, texts [N, K], have a score each."""
    classes, scores = outputs[head + CLASSES_SUFFIX], outputs.get(head + SCORES_SUFFIX)
    if scores is None or scores.dtype.kind not in "fV":
        return False
    return classes.dtype.kind == "O" and classes.ndim == 2 and scores.shape == classes.shape


def _of_labels(
    head: str, before: Mapping[str, Array], after: Mapping[str, Array], tolerance: Tolerance
) -> Iterator[Change]:
    """Of the best labels of each row, and of their scores, in whatever order they are."""
    name = head + SCORES_SUFFIX
    yield from _of_nan(name, before[name], after[name])
    sides = [
        [
            dict(zip(labels, scores, strict=True))
            for labels, scores in zip(
                side[head + CLASSES_SUFFIX].tolist(),
                side[name].astype(np.float64).tolist(),
                strict=True,
            )
        ]
        for side in (before, after)
    ]
    others, off = [], []
    for row, (was, now) in enumerate(zip(*sides, strict=True)):
        if not was or any(map(math.isnan, (*was.values(), *now.values()))):
            continue
        best, best_now = max(was, key=was.__getitem__), max(now, key=now.__getitem__)
        if best != best_now and was[best] - was.get(best_now, 0) > NOISE:
            told = f"{_text(best)} ({was[best]:.4f}) is {_text(best_now)} ({now[best_now]:.4f})"
            others.append(Change(Kind.CLASS, f"{head}: {told}", now[best_now], row))
        far = max((abs(was[label] - now[label]) for label in was.keys() & now.keys()), default=0)
        off.append((far, row))
    yield from _largest(others)
    yield from _off(head, off, tolerance)


def _of_arrays(name: str, was: Array, now: Array, tolerance: Tolerance) -> Iterator[Change]:
    if was.dtype.kind not in "fV":
        different = was != now
        if is_mask(name, was):
            yield from _of_masks(name, was, now, tolerance)
        elif different.any():
            share = float(different.mean())
            yield Change(Kind.VALUE, f"{name}: {share:.2%} of the values are others", share)
    elif is_mask(name, was):
        yield from _of_masks(name, _classes_of(was), _classes_of(now), tolerance)
        yield from _of_nan(name, was, now)
    elif are_scores(was):
        yield from _of_classes(name, was, now)
        yield from _of_scores(name, was, now, tolerance)
    else:
        yield from _of_numbers(name, was, now, tolerance)


def are_scores(array: Array) -> bool:
    """Whether [N, K] are scores of K classes that exclude each other."""
    if array.ndim != 2 or array.shape[1] < 2 or not array.size:
        return False
    plain = array.astype(np.float64)
    return bool((plain >= 0).all() and np.allclose(plain.sum(axis=1), 1, atol=1e-2))


def _of_classes(name: str, was: Array, now: Array) -> Iterator[Change]:
    told = ~np.isnan(now.astype(np.float64)).any(axis=1)
    best, best_now = was.argmax(axis=1), now.argmax(axis=1)
    yield from _largest(
        Change(
            Kind.CLASS,
            f"{name}: class {best[row]} ({was[row, best[row]]:.4f}) is "
            f"class {best_now[row]} ({now[row, best_now[row]]:.4f})",
            float(now[row, best_now[row]]),
            row,
        )
        for row in np.flatnonzero(told & (best != best_now)).tolist()
        if was[row, best[row]] - was[row, best_now[row]] > NOISE
    )


def _of_scores(name: str, was: Array, now: Array, tolerance: Tolerance) -> Iterator[Change]:
    yield from _of_nan(name, was, now)
    with np.errstate(invalid="ignore"):  # of two infinities
        far = np.nan_to_num(np.abs(was.astype(np.float64) - now.astype(np.float64)))
    rows = np.atleast_1d(far.max(axis=tuple(range(1, far.ndim)), initial=0) if far.ndim else far)
    yield from _off(name, [(each, row) for row, each in enumerate(rows.tolist())], tolerance)


def _off(name: str, rows: list[tuple[float, int]], tolerance: Tolerance) -> Iterator[Change]:
    far, row = max(rows, default=(0.0, 0))
    if far > tolerance.score:
        yield Change(Kind.SCORE, f"{name}: a score is off by {far:.3g}", far, row)


def _of_numbers(name: str, was: Array, now: Array, tolerance: Tolerance) -> Iterator[Change]:
    yield from _of_nan(name, was, now)
    before, after = was.astype(np.float64), now.astype(np.float64)
    scale = float(np.abs(before[np.isfinite(before)]).max(initial=0.0)) or 1.0
    with np.errstate(invalid="ignore"):  # of two infinities
        far = float(np.nan_to_num(np.abs(before - after)).max(initial=0.0)) / scale
    if far > tolerance.score:
        yield Change(Kind.VALUE, f"{name}: a value is off by {far:.3g} of the largest", far)


def _of_nan(name: str, was: Array, now: Array) -> Iterator[Change]:
    lost = np.isnan(now.astype(np.float64)) & ~np.isnan(was.astype(np.float64))
    if lost.any():
        share = float(lost.mean())
        yield Change(Kind.NAN, f"{name}: {share:.2%} of the values are no numbers now", share)


def _classes_of(scores: Array) -> Array:
    """The class of each pixel, [N, h, w], of scores [N, h, w, C]; of one channel 0 or 1."""
    if scores.shape[3] == 1:
        return scores[..., 0] > 0.5
    classes: Array = scores.argmax(axis=3)
    return classes


def _of_masks(name: str, was: Array, now: Array, tolerance: Tolerance) -> Iterator[Change]:
    overlaps = [overlap(*each) for each in zip(was, now, strict=True)]
    least = min(overlaps, default=1.0)
    if least < tolerance.overlap:
        what = f"{name}: the masks overlap by {least:.3f}"
        yield Change(Kind.MASK, what, 1 - least, overlaps.index(least))


def overlap(was: Array, now: Array) -> float:
    """The intersection over the union of two masks [h, w] of class numbers, the mean over the
    classes that either has but the background, 0; 1.0 where neither has any.

    >>> overlap(np.array([[0, 1, 1, 2]]), np.array([[0, 1, 0, 2]]))
    0.75
    """
    classes = [each for each in np.union1d(was, now).tolist() if each]
    shares = [
        np.count_nonzero((was == each) & (now == each))
        / np.count_nonzero((was == each) | (now == each))
        for each in classes
    ]
    return float(np.mean(shares)) if shares else 1.0


def _largest(found: Iterator[Change] | list[Change]) -> Iterator[Change]:
    largest = max(found, key=lambda change: change.size, default=None)
    if largest is not None:
        yield largest


def _text(label: bytes | str) -> str:
    return label.decode(errors="replace") if isinstance(label, bytes) else label

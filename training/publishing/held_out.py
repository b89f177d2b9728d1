"""Held-out samples kept beside a version: a later one is held against it on the same."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sluice.wire.tensors import Array
from training.data.dataset import Arrays, Dataset, spaced

FILE = "held-out.npz"
_MOST_BYTES = 32_000_000  # of pixels: of a folder of photographs it keeps some

Labels = Mapping[str, tuple[str, ...]]  # by head; of one that names no classes, none


@dataclass(frozen=True)
class HeldOut:
    """inputs: uint8 [N, ...] by name; targets: [N, ...] by head, class numbers as in `labels`.

    >>> images = np.zeros((2, 8, 8, 1), np.uint8)
    >>> len(HeldOut({"image": images}, {"label": np.array([0, 1])}, {"label": ("cat", "dog")}))
    2
    """

    inputs: Arrays
    targets: Arrays
    labels: Labels

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))


def of(dataset: Dataset) -> HeldOut:
    """The test split, or as much of it as is kept, from all over it: a folder's lies by class."""
    row = sum(array[:1].nbytes for array in dataset.test.inputs.values())
    kept = dataset.test.take(spread(len(dataset.test), row))
    labels = {name: tuple(head.labels) for name, head in dataset.heads.items()}
    return HeldOut(kept.inputs, kept.targets, labels)


def spread(count: int, row: int) -> Array:
    """As many of `count` rows as are kept, `row` bytes each, from all over them.

    >>> spread(3, row=10).tolist(), len(spread(100, row=1_000_000))
    ([0, 1, 2], 32)
    """
    return spaced(count, max(1, _MOST_BYTES // row))


def write(directory: Path, samples: HeldOut) -> None:
    arrays = {f"input/{name}": array for name, array in samples.inputs.items()}
    arrays |= {f"target/{name}": _small(array) for name, array in samples.targets.items()}
    labels = np.array(json.dumps(samples.labels))
    np.savez_compressed(directory / FILE, allow_pickle=False, labels=labels, **arrays)


def read(directory: Path) -> HeldOut | None:
    """None where none are kept: of a version that Sluice did not train."""
    if not (directory / FILE).exists():
        return None
    with np.load(directory / FILE) as file:
        labels = json.loads(str(file["labels"]))
        arrays = {name: file[name] for name in file.files}
    return HeldOut(
        _under("input/", arrays),
        _under("target/", arrays),
        {name: tuple(each) for name, each in labels.items()},
    )


def stored_bytes(samples: HeldOut) -> int:
    """What they take on the disk at most."""
    targets = [_small(array) for array in samples.targets.values()]
    return sum(array.nbytes for array in (*samples.inputs.values(), *targets))


def _under(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def _small(target: Array) -> Array:
    """Class numbers in as few bytes as hold them; a mask has one a pixel."""
    if target.dtype.kind == "f":
        return target
    return target.astype(np.min_scalar_type(int(target.max(initial=0))))

"""A few held-out images as PNG files, named by what they show: `3-0.png`."""

import re
from pathlib import Path

import numpy as np

from training.data.dataset import Dataset
from training.data.heads import Mask
from training.publishing.trials import encode_png

_PER_CLASS = 2


def write(directory: Path, dataset: Dataset) -> list[str]:
    """The first test images of each class of the first head; give the files' names.

    `<label>-<k>.png`, counted from 0; `<label>-<k>.<input>.png` where there are several inputs;
    the label in lower case, everything but letters and digits as `-`.
    """
    directory.mkdir()
    written = []
    for label, count, row in _chosen(dataset):
        for name, images in dataset.test.inputs.items():
            suffix = f".{name}" if len(dataset.test.inputs) > 1 else ""
            path = directory / f"{label}-{count}{suffix}.png"
            path.write_bytes(encode_png(images[row]))
            written.append(path.name)
    return written


def _chosen(dataset: Dataset) -> list[tuple[str, int, int]]:
    """(label, count, row) of the samples."""
    name, head = next(iter(dataset.heads.items()))
    if isinstance(head, Mask):
        return [("sample", row, row) for row in range(min(_PER_CLASS * 5, len(dataset.test)))]
    targets = dataset.test.targets[name]
    return [
        (_slug(label), count, int(row))
        for number, label in enumerate(head.labels)
        for count, row in enumerate(np.flatnonzero(targets == number)[:_PER_CLASS])
    ]


def _slug(label: str) -> str:
    """In lower case, and everything but letters and digits as `-`.

    >>> _slug("T-shirt/top")
    't-shirt-top'
    """
    return re.sub(r"[\W_]+", "-", label.lower()).strip("-")

"""scikit-learn's 1,797 handwritten digits, [8, 8, 1], which need no download."""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sluice.wire.tensors import Array
from training.data.dataset import Dataset, Split
from training.data.heads import Classes
from training.errors import DataError
from training.recipes import Recipe


def load(_: Recipe, data: Path | None) -> Dataset:
    """scikit-learn's digits, their 0..16 spread over 0..255, so that a PNG file holds the same."""
    if data is not None:
        raise DataError(
            f"{data} has no folder of images in it: expected one for each class. "
            f"scikit-learn's digits need no --data"
        )
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
    labels = digits.target.astype(np.int64)
    seen, test = _split(np.arange(len(labels)), labels, 360)
    train, validation = _split(seen, labels[seen], 180)
    rows = {"train": train, "validation": validation, "test": test}
    splits = {
        part: Split({"image": images[mine]}, {"label": labels[mine]}) for part, mine in rows.items()
    }
    return Dataset(
        **splits,
        heads={"label": Classes(tuple("0123456789"))},
        origin="scikit-learn load_digits",
    )


def _split(rows: Array, labels: Array, held_out: int) -> tuple[Array, Array]:
    """The same on every machine, with each class in proportion."""
    rest, held = train_test_split(rows, test_size=held_out, stratify=labels, random_state=0)
    return rest, held

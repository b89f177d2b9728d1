"""Labelled images -> what a recipe's model is asked about them.

Each function takes and gives a whole Dataset. What is drawn by chance is drawn with a fixed seed,
and from the split's own images, so that two runs see the same and the splits stay apart.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from sklearn.datasets import load_sample_images

from sluice.wire.tensors import Array
from training.data.dataset import Dataset, Split
from training.data.heads import Classes, Mask, Number
from training.errors import DataError

_PAIRS_PER_IMAGE = 32
_INK = 16  # a pixel above this, of 255, belongs to the object and not to its black ground
_CANVAS = 32  # side of a segmentation image: U-Net halves it


def labels(dataset: Dataset) -> Dataset:
    """The images' classes, as they come."""
    return dataset


def views(dataset: Dataset) -> Dataset:
    """The left and the right half of each image, as if two cameras stood before the object.

    >>> from pathlib import Path
    >>> from training.data.load import load
    >>> from training.recipes import RECIPES
    >>> halves = views(load(RECIPES["digits"], None, Path())).test.inputs
    >>> {name: image.shape for name, image in halves.items()}
    {'left': (360, 8, 4, 1), 'right': (360, 8, 4, 1)}
    """

    def halves(split: Split) -> Split:
        image = split.inputs["image"]
        middle = image.shape[2] // 2
        return Split({"left": image[:, :, :middle], "right": image[:, :, -middle:]}, split.targets)

    return dataset.changed(halves)


def coverage(dataset: Dataset) -> Dataset:
    """Beside the class, the share of the pixels that the object covers, 0 to 1.

    >>> from pathlib import Path
    >>> from training.data.load import load
    >>> from training.recipes import RECIPES
    >>> list(coverage(load(RECIPES["digits"], None, Path())).test.targets)
    ['label', 'coverage']
    """

    def covered(split: Split) -> Split:
        share = (split.inputs["image"] > _INK).mean(axis=(1, 2, 3)).astype(np.float32)
        return Split(split.inputs, {**split.targets, "coverage": share})

    # Its squared error is near 0.01 where a cross-entropy is near 1.
    heads = {**dataset.heads, "coverage": Number(weight=20.0)}
    return replace(dataset.changed(covered), heads=heads)


def sums(dataset: Dataset) -> Dataset:
    """Random pairs within a split: both digits, and their sum.

    >>> from pathlib import Path
    >>> from training.data.load import load
    >>> from training.recipes import RECIPES
    >>> pairs = sums(load(RECIPES["digits"], None, Path())).test
    >>> list(pairs.inputs), list(pairs.targets), len(pairs)
    (['left', 'right'], ['left_digit', 'right_digit', 'sum'], 11520)
    """
    rng = np.random.default_rng(0)

    def paired(split: Split) -> Split:
        left, right = rng.integers(len(split), size=(2, _PAIRS_PER_IMAGE * len(split)))
        images, digits = split.inputs["image"], split.targets["label"]
        return Split(
            {"left": images[left], "right": images[right]},
            {
                "left_digit": digits[left],
                "right_digit": digits[right],
                "sum": digits[left] + digits[right],
            },
        )

    digits = Classes(_dataset_labels(dataset))
    totals = Classes(tuple(str(total) for total in range(2 * len(digits.labels) - 1)))
    heads = {"left_digit": digits, "right_digit": digits, "sum": totals}
    return replace(dataset.changed(paired), heads=heads)


def masks(dataset: Dataset) -> Dataset:
    """Each object somewhere on a piece of a photograph; which pixels are its own?

    The photographs are scikit-learn's two; test images lie on parts that training does not see.

    >>> from pathlib import Path
    >>> from training.data.load import load
    >>> from training.recipes import RECIPES
    >>> pictures = masks(load(RECIPES["digits"], None, Path())).test
    >>> pictures.inputs["image"].shape, pictures.targets["mask"].shape
    ((360, 32, 32, 1), (360, 32, 32))
    """
    rng = np.random.default_rng(0)
    photographs = [picture.mean(axis=-1) for picture in load_sample_images().images]  # [427, 640]

    def placed(split: Split) -> Split:
        seen = slice(None, 320) if split is not dataset.test else slice(320, None)
        pairs = [
            _place(image[..., 0], photographs[rng.integers(2)][:, seen], rng)
            for image in split.inputs["image"]
        ]
        canvases, owned = (np.stack(each) for each in zip(*pairs, strict=True))
        return Split({"image": canvases[..., np.newaxis]}, {"mask": owned})

    return replace(dataset.changed(placed), heads={"mask": Mask(("ground", "object"))})


def _place(image: Array, ground: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """[h, w] on a random piece of [H, W] -> uint8 [_CANVAS, _CANVAS] and int64 of 0 and 1."""
    height, width = image.shape
    if max(height, width) > _CANVAS:
        raise DataError(
            f"masks are drawn on {_CANVAS}x{_CANVAS} pixels: an image of "
            f"{height}x{width} does not fit"
        )
    top, left = (rng.integers(whole - _CANVAS + 1) for whole in ground.shape)
    canvas = ground[top : top + _CANVAS, left : left + _CANVAS].copy()
    owned = np.zeros((_CANVAS, _CANVAS), np.int64)
    y, x = rng.integers(_CANVAS - height + 1), rng.integers(_CANVAS - width + 1)
    owned[y : y + height, x : x + width] = image > _INK
    canvas[owned == 1] = image[image > _INK]
    return canvas.astype(np.uint8), owned


def _dataset_labels(dataset: Dataset) -> tuple[str, ...]:
    return next(head.labels for head in dataset.heads.values() if head.labels)


TASKS: dict[str, Callable[[Dataset], Dataset]] = {
    "labels": labels,
    "views": views,
    "coverage": coverage,
    "sums": sums,
    "masks": masks,
}

"""Recipe -> Dataset."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import tensorflow as tf

from sluice.wire.tensors import Array
from training.data.dataset import Dataset, Split
from training.data.sources import digits, fashion, folder, table
from training.data.sources.tree import shown
from training.data.tasks import TASKS
from training.errors import DataError
from training.recipes import Recipe

SOURCES: dict[str, Callable[[Recipe, Path | None], Dataset]] = {
    "digits": digits.load,
    "fashion": fashion.load,
}


def load(recipe: Recipe, data: Path | None, workspace: Path) -> Dataset:
    """The recipe's images, or those at `data`, as its task asks about them. Raises DataError.

    data: a CSV file, a folder of images by class, or a folder with the source's own files.
    workspace: where pixels and the split of a folder or a CSV file are kept.

    >>> from training.recipes import RECIPES
    >>> digits_of_8x8 = load(RECIPES["digits"], None, workspace=Path())
    >>> digits_of_8x8.input_shape, len(digits_of_8x8.train)
    ((8, 8, 1), 1257)
    """
    if data is not None and not data.exists():
        raise DataError(
            f"there is no {shown(data)}: expected a folder of images by class, or a CSV file"
        )
    if data is not None and data.is_file():
        return table.load(recipe, data, workspace)
    if data is None or fashion.is_source_folder(data):
        dataset = SOURCES[recipe.source](recipe, data)
    else:
        dataset = folder.load(recipe, data, workspace)
    return TASKS[recipe.task](_resized(_limited(dataset, recipe), recipe.image_size))


def _resized(dataset: Dataset, side: int) -> Dataset:
    """With images of side x side pixels; 0: as they are."""
    if side in (0, dataset.input_shape[0]):
        return dataset
    return dataset.changed(
        lambda split: Split(
            {name: _resize(images, side) for name, images in split.inputs.items()}, split.targets
        )
    )


def _resize(images: Array, side: int) -> Array:
    """uint8 [N, h, w, C] -> [N, side, side, C], as a published model resizes (decoding/)."""
    chunks = [
        tf.image.resize(images[start : start + 1000], (side, side), antialias=True)
        for start in range(0, len(images), 1000)
    ]
    return np.concatenate([np.round(chunk).astype(np.uint8) for chunk in chunks])


def _limited(dataset: Dataset, recipe: Recipe) -> Dataset:
    """With no more training images than the recipe's limit, drawn by its seed, and for validation
    no more than a tenth of that."""
    if not 0 < recipe.limit < len(dataset.train):
        return dataset
    rows = np.random.default_rng(recipe.seed).permutation(len(dataset.train))[: recipe.limit]
    return replace(
        dataset,
        train=dataset.train.take(rows),
        validation=dataset.validation.take(slice(max(1, recipe.limit // 10))),
    )

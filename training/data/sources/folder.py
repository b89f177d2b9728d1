"""Any folder of images by class: FOLDER/<class>/**/<image>."""

from pathlib import Path

import numpy as np

from training.data.dataset import Dataset, Split
from training.data.heads import Classes
from training.data.sources.images import Example, read_parts
from training.errors import DataError
from training.recipes import Recipe

DEFAULT_SIDE = 64
_FEWEST = 3  # images of a class: one to train on, one to watch, one held out


def load(recipe: Recipe, data: Path, workspace: Path) -> Dataset:
    """Labels are the folders' names, in alphabetical order. Raises DataError."""
    labels, examples = _listed(data)
    side = recipe.image_size or DEFAULT_SIDE
    parts = read_parts(examples, (side, side, recipe.channels), data, workspace)
    splits = {
        part: Split(
            images, {"label": np.array([labels.index(each.stratum) for each in kept], np.int64)}
        )
        for part, (images, kept) in parts.items()
    }
    _check(labels, splits["train"], data)
    heads = {"label": Classes(tuple(labels))}
    return Dataset(**splits, heads=heads, origin=f"the images in {data.name}/")


def _listed(data: Path) -> tuple[list[str], list[Example]]:
    """The classes and their files, of whatever kind; hidden ones are left out."""
    folders = sorted(
        entry for entry in data.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )
    if len(folders) < 2:
        raise DataError(
            f"{data} has {len(folders)} folders: expected one for each class, two at "
            f"least, with that class's images in it"
        )
    examples = [
        Example(path.relative_to(data).as_posix(), {"image": path}, folder.name)
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    ]
    for folder in folders:
        count = sum(example.stratum == folder.name for example in examples)
        if count < _FEWEST:
            raise DataError(
                f"class {folder.name!r} has {count} files in {folder}: expected "
                f"{_FEWEST} images at least; add some, or move the folder away"
            )
    return [folder.name for folder in folders], examples


def _check(labels: list[str], train: Split, data: Path) -> None:
    """Raises DataError for a class without an image to train on."""
    for number, label in enumerate(labels):
        if not (train.targets["label"] == number).any():
            raise DataError(
                f"class {label!r} has no readable image to train on in {data / label}: "
                f"expected JPEG, PNG, GIF or BMP files"
            )

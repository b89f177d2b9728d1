"""Any folder of images by class: FOLDER/<class>/**/<image>."""

from pathlib import Path

import numpy as np

from training.data.dataset import Dataset, Split
from training.data.heads import Classes
from training.data.sources.images import PARTS, Example, read, remembered_split, report_skipped
from training.errors import DataError
from training.recipes import Recipe

DEFAULT_SIDE = 64
_FEWEST = 3  # images of a class: one to train on, one to watch, one held out


def load(recipe: Recipe, data: Path, workspace: Path) -> Dataset:
    """Labels are the folders' names, in alphabetical order. Raises DataError."""
    labels, examples = _listed(data)
    side = recipe.image_size or DEFAULT_SIDE
    parts = remembered_split(examples, workspace)
    splits, skipped = {}, []
    for part in PARTS:
        images, rows = read(parts[part], (side, side, recipe.channels), workspace)
        kept = [parts[part][row] for row in rows]
        targets = np.array([labels.index(example.stratum) for example in kept], np.int64)
        splits[part] = Split(images, {"label": targets})
        skipped += [
            path
            for row, example in enumerate(parts[part])
            if row not in set(rows)
            for path in example.files.values()
        ]
    report_skipped(skipped, workspace)
    _check(labels, splits, data)
    return Dataset(
        splits["train"],
        splits["validation"],
        splits["test"],
        {"label": Classes(tuple(labels))},
        f"the images in {data.name}/",
    )


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


def _check(labels: list[str], splits: dict[str, Split], data: Path) -> None:
    for number, label in enumerate(labels):
        if not (splits["train"].targets["label"] == number).any():
            raise DataError(
                f"class {label!r} has no readable image to train on in {data / label}: "
                f"expected JPEG, PNG, GIF or BMP files"
            )
    for part in ("validation", "test"):
        if not len(splits[part]):
            raise DataError(f"none of the images that {part} takes from {data} can be read")

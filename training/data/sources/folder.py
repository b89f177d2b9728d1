"""Any folder of images by class: FOLDER/<class>/**/<image>, or FOLDER/train/<class>/**/<image>."""

import unicodedata
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from sluice.pictures.formats import EXPECTED
from training.data.dataset import Dataset, Split
from training.data.heads import Classes
from training.data.sources.images import HELD_OUT, Example, read_parts
from training.data.sources.ready_split import find_parts
from training.data.sources.tree import check_case, counted, entries, files_below, shown
from training.errors import DataError
from training.recipes import Recipe

DEFAULT_SIDE = 64


def load(recipe: Recipe, data: Path, workspace: Path) -> Dataset:
    """Labels are the folders' names, in alphabetical order. Raises DataError."""
    parts = find_parts(data)
    labels = _labels(parts.get("train", data))
    examples = _examples(data, parts, labels)
    side = recipe.image_size or DEFAULT_SIDE
    read = read_parts(examples, (side, side, recipe.channels), data, workspace)
    splits = {
        part: Split(
            images, {"label": np.array([labels.index(each.stratum) for each in kept], np.int64)}
        )
        for part, (images, kept) in read.items()
    }
    _check_readable(labels, splits["train"], parts.get("train", data))
    heads = {"label": Classes(tuple(labels))}
    return Dataset(**splits, heads=heads, origin=f"the images in {shown(data.resolve().name)}/")


def _labels(root: Path) -> list[str]:
    """The names of the folders in `root`, which are its classes."""
    folders, files = entries(root)
    if len(folders) < 2:
        raise DataError(_too_few(root, folders, files))
    labels = [_label(folder) for folder in folders]
    check_case(labels, root)
    return sorted(labels)


def _label(folder: Path) -> str:
    """What a folder calls its class; the same letters however its file system writes them."""
    try:
        folder.name.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"the name of {shown(folder)} is not UTF-8, and clients are to read it as the class: "
            f"rename the folder"
        ) from None
    return unicodedata.normalize("NFC", folder.name)


def _too_few(root: Path, folders: list[Path], files: list[Path]) -> str:
    expected = "expected one folder for each class, two at least, with that class's images in it"
    if not folders:
        return f"{shown(root)} has {counted(len(files), 'file')} and no folder in it: {expected}"
    inner = entries(folders[0])[0]
    hint = f"; did you mean {shown(folders[0])}?" if len(inner) > 1 else ""
    return f"{shown(root)} has one folder only, {shown(folders[0].name)}/: {expected}{hint}"


def _examples(data: Path, parts: dict[str, Path], labels: list[str]) -> list[Example]:
    """Every file of every class. With a part of its own where the owner's folders say of all three
    which is which; what they have no folder for is taken from train/."""
    to_fill = [part for part in HELD_OUT if part not in parts] if parts else [*HELD_OUT]
    found: list[Example] = []
    for part, root in (parts or {"train": data}).items():
        fixed = None if part == "train" and to_fill else part
        folders = entries(root)[0]
        for folder in folders:
            label = _label(folder)
            if label not in labels:
                raise DataError(
                    f"{shown(folder)} is no class of {shown(parts['train'])}: expected "
                    f"{', '.join(labels[:10])}{', …' if len(labels) > 10 else ''}"
                )
            files = files_below(folder)
            if part == "train":
                _check_enough(label, len(files), 1 + len(to_fill), folder)
            found += [
                Example(path.relative_to(data).as_posix(), {"image": path}, label, fixed)
                for path in files
            ]
    return found


def _check_enough(label: str, count: int, fewest: int, folder: Path) -> None:
    if count < fewest:
        raise DataError(
            f"class {label!r} has {counted(count, 'file')} in {shown(folder)}: expected {fewest} "
            f"images at least; add some, or move the folder away"
        )


def _check_readable(labels: Iterable[str], train: Split, root: Path) -> None:
    """Raises DataError for a class without an image to train on."""
    for number, label in enumerate(labels):
        if not (train.targets["label"] == number).any():
            raise DataError(
                f"class {label!r} has no readable image to train on in {shown(root / label)}: "
                f"expected {EXPECTED}"
            )

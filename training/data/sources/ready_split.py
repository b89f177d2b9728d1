"""A folder that its owner has divided already: train/, val/ and test/, each with the classes."""

from pathlib import Path

from training.data.sources.tree import counted, entries, shown
from training.errors import DataError

_PARTS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
_EXPECTED = (
    "expected either a folder for each class, or train/, val/ and test/ (the last two may be "
    "missing) with a folder for each class in each of them"
)


def find_parts(data: Path) -> dict[str, Path]:
    """The folders by the part that they are named for; {} where they are classes.

    Raises DataError where they are neither the one nor the other.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as data:
    ...     for folder in ("train/cat", "train/dog", "val/cat"):
    ...         Path(data, folder).mkdir(parents=True)
    ...     sorted(find_parts(Path(data)))
    ['train', 'validation']
    """
    folders, _ = entries(data)
    named = [folder for folder in folders if folder.name.lower() in _PARTS]
    others = [folder for folder in folders if folder not in named]
    if not named or (len(named) == 1 and others and not entries(named[0])[0]):
        return {}  # one of the classes may be the trains
    if others:
        raise DataError(f"{shown(data)} has {_listed(named)} beside {_listed(others)}: {_EXPECTED}")
    parts = {_PARTS[folder.name.lower()]: folder for folder in named}
    if len(parts) < len(named) or "train" not in parts:
        raise DataError(f"{shown(data)} has {_listed(named)}: {_EXPECTED}")
    for folder in parts.values():
        _check_has_classes(folder)
    return parts


def _check_has_classes(folder: Path) -> None:
    folders, files = entries(folder)
    if folders:
        return
    advice = (
        "sort its pictures into one for each class"
        if _PARTS[folder.name.lower()] == "train"
        else "sort its pictures as train/ is sorted, or move it away: some of train/'s are held "
        "out in its place"
    )
    raise DataError(
        f"{shown(folder)} has {counted(len(files), 'file')} and no folder in it: which class is "
        f"each? {advice}"
    )


def _listed(folders: list[Path]) -> str:
    names = [f"{shown(folder.name)}/" for folder in folders[:4]]
    return ", ".join(names) + (", …" if len(folders) > len(names) else "")

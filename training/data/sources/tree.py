"""What lies in a folder of one's own, without what tools and systems have put beside it."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from training.errors import DataError

# Hidden ones begin with a dot: .ipynb_checkpoints, .DS_Store, ._x.png.
_LEFT_BY_TOOLS = {
    "__macosx",
    "__pycache__",
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "icon\r",
    "@eadir",
    "$recycle.bin",
    "system volume information",
    "lost+found",
}


def is_left_by_tools(name: str) -> bool:
    """Whether a file or folder of this name is nobody's picture or class.

    >>> is_left_by_tools(".ipynb_checkpoints"), is_left_by_tools("Thumbs.db"), is_left_by_tools("7")
    (True, True, False)
    """
    return name.startswith(".") or name.casefold() in _LEFT_BY_TOOLS


def entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """Its folders and its files, each sorted. Raises DataError where it cannot be listed.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     for name in ("dog", "cat", "__MACOSX"):
    ...         Path(folder, name).mkdir()
    ...     [each.name for each in entries(Path(folder))[0]]
    ['cat', 'dog']
    """
    try:
        listed = sorted(each for each in folder.iterdir() if not is_left_by_tools(each.name))
    except OSError as error:
        raise DataError(f"cannot look into {shown(folder)}: {error.strerror}") from error
    folders = [each for each in listed if each.is_dir()]
    return folders, [each for each in listed if each.is_file()]


def files_below(folder: Path) -> list[Path]:
    """At every depth. A link to a folder is followed, a circle of them once.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     Path(folder, "old").mkdir()
    ...     for name in ("old/1.png", "2.png", "Thumbs.db"):
    ...         Path(folder, name).touch()
    ...     [each.name for each in files_below(Path(folder))]
    ['2.png', '1.png']
    """
    return sorted(_walk(folder, set()))


def _walk(folder: Path, seen: set[Path]) -> Iterator[Path]:
    real = folder.resolve()
    if real in seen:
        return
    seen.add(real)
    folders, files = entries(folder)
    yield from files
    for each in folders:
        yield from _walk(each, seen)


def check_case(labels: Iterable[str], source: Path) -> None:
    """Raises DataError for classes that differ in upper and lower case alone: a slip mostly.

    >>> check_case(["cat", "dog"], Path("photos"))
    """
    same: dict[str, str] = {}
    for label in labels:
        if label.casefold() in same:
            raise DataError(
                f"{shown(source)} has the classes {same[label.casefold()]!r} and {label!r}, which "
                f"differ in upper and lower case alone: put their images together under one name, "
                f"or name one of them otherwise"
            )
        same[label.casefold()] = label


def shown(path: Path | str) -> str:
    r"""As it can be printed: a name of bytes that are no UTF-8 has them as `\xff`.

    >>> shown(os.fsdecode(b"caf\xe9"))
    'caf\\xe9'
    """
    return os.fsencode(path).decode(errors="backslashreplace")


def counted(count: int, thing: str) -> str:
    """
    >>> counted(1, "file"), counted(0, "file")
    ('1 file', '0 files')
    """
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"

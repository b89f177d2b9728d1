"""Folders, files and locks of several users: a command's, and the gateways'. Whoever may write into
the directory that one is made in may write into it too, whatever the umask of who made it.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path


def make_folder(folder: Path) -> None:
    """With those above it, where they are not there. Raises OSError.

    >>> make_folder(Path("."))
    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    try:
        folder.mkdir()
    except FileExistsError:  # somebody has made it meanwhile
        return
    with suppress(OSError):  # a mount may have modes of its own
        folder.chmod(_mode_within(folder))


def write_whole(path: Path, text: str) -> None:
    """Whoever reads it finds the old one or the new one; its folder is made. Raises OSError.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_whole(Path(folder, "of", "a.json"), "{}")
    ...     [each.name for each in Path(folder, "of").iterdir()]
    ['a.json']
    """
    make_folder(path.parent)
    beside = path.with_name(f".{path.name.removeprefix('.')}.new")
    beside.unlink(missing_ok=True)  # of another user's command, that was killed
    beside.write_text(text)
    beside.replace(path)


def open_lock(path: Path) -> int:
    """A descriptor of a file to lock, made where it is not there: one that can be written, where
    that is allowed, as NFS locks nothing else. Raises OSError.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as directory:
    ...     os.close(open_lock(Path(directory, "lock")))
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:
        if not path.exists():
            raise
        return os.open(path, os.O_RDONLY)
    with suppress(OSError):  # another user has made it, or a mount has modes of its own
        os.fchmod(descriptor, _mode_within(path) & 0o666)
    return descriptor


def _mode_within(path: Path) -> int:
    return stat.S_IMODE(path.parent.stat().st_mode)

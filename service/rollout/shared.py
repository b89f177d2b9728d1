"""Folders and locks of several users: a command's, and the gateways'. Whoever may write into the
directory that one is made in may write into it too, whatever the umask of who made it.
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
    with suppress(FileExistsError):  # somebody has made it meanwhile
        folder.mkdir()
        folder.chmod(_mode_within(folder))


def open_lock(path: Path) -> int:
    """A descriptor of a file to lock, made where it is not there: one that can be written, as NFS
    locks nothing else. Raises OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    with suppress(PermissionError):  # another user has made it
        os.fchmod(descriptor, _mode_within(path) & 0o666)
    return descriptor


def _mode_within(path: Path) -> int:
    return stat.S_IMODE(path.parent.stat().st_mode)

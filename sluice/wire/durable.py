"""Files that are on the disk, and not on their way there: a name that is given to them after that
leads to no empty file once the power fails."""

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Have a file, or the names in a directory, written to the disk. Raises OSError.

    >>> sync(Path("."))
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(directory: Path) -> None:
    """The same of a directory and all that is below it. Raises OSError.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as version:
    ...     sync_tree(Path(version))
    """
    for entry in directory.rglob("*"):
        sync(entry)
    sync(directory)

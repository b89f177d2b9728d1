"""A full disk as an error that says how much is missing."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from training.errors import DiskFull, PublishError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


@contextlib.contextmanager
def room_for(what: str, directory: Path, needed: int = 0) -> Iterator[None]:
    """Write `what` within, of about `needed` bytes (0: nobody knows).

    Raises DiskFull, before a byte is written where they do not fit into what is free.

    >>> with room_for("a few numbers", Path(), needed=8):
    ...     pass
    """
    if needed and shutil.disk_usage(directory).free < needed:
        raise _full(what, directory, needed)
    try:
        yield
    except Exception as error:  # TensorFlow, h5py and others have errors of their own for it
        if not is_full(error):
            raise
        raise _full(what, directory, needed) from error


@contextlib.contextmanager
def writable(directory: Path) -> Iterator[None]:
    """Make or write `directory` within. Raises PublishError where the system refuses.

    >>> with writable(Path("/proc/repository")):
    ...     Path("/proc/repository").mkdir()
    Traceback (most recent call last):
    training.errors.PublishError: cannot write to /proc/repository: No such file or directory; \
name another --model-repository, or see to its permissions
    """
    try:
        yield
    except OSError as error:
        raise PublishError(
            f"cannot write to {error.filename or directory}: {error.strerror}; name another "
            f"--model-repository, or see to its permissions"
        ) from error


def allocate(what: str, path: Path) -> None:
    """Have the disk keep the whole of a file that may be sparse: one that is written to through
    memory ends the process (SIGBUS) where the disk is full. Raises DiskFull.

    >>> from tempfile import NamedTemporaryFile
    >>> with NamedTemporaryFile() as file:
    ...     os.truncate(file.name, 8192)
    ...     allocate("pixels", Path(file.name))
    ...     os.stat(file.name).st_blocks * 512
    8192
    """
    size = path.stat().st_size
    with room_for(what, path.parent, size), path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, size)


def is_full(error: BaseException | None) -> bool:
    """Whether it, or what it comes from, says that a disk is. TensorFlow's errors say it in the
    system's words alone.

    >>> is_full(OSError(errno.ENOSPC, "")), is_full(OSError(errno.ENOENT, ""))
    (True, False)
    """
    return error is not None and (
        (isinstance(error, OSError) and error.errno in _FULL)
        or any(os.strerror(code) in str(error) for code in _FULL)
        or is_full(error.__cause__)
    )


def _full(what: str, directory: Path, needed: int) -> DiskFull:
    free = shutil.disk_usage(directory).free
    place = f"the disk of {directory}"
    if needed > free:
        return DiskFull(
            f"{place} is full: {what} needs {in_words(needed)} and {in_words(free)} are free, so "
            f"that {in_words(needed - free)} are missing. Make room, or name another "
            f"--model-repository"
        )
    return DiskFull(
        f"{place} is full, or its quota is used up: there was no room for {what}"
        + (f", of {in_words(needed)}" if needed else "")
        + f" ({in_words(free)} are free now). Make room, or name another --model-repository"
    )


def in_words(count: int) -> str:
    """Bytes in the unit that fits.

    >>> in_words(0), in_words(1_250_000)
    ('0 bytes', '1.2 MB')
    """
    size, unit = float(count), 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.1f} {_UNITS[unit]}" if unit else f"{count} bytes"

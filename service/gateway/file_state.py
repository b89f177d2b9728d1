"""Whether a file that is read while the gateway runs has changed."""

import os


def state_of(path: str | os.PathLike[str]) -> tuple[int, ...]:
    """Another one whenever the file is another; () where it is not there."""
    try:
        found = os.stat(path)  # noqa: PTH116 (follows a mounted Secret's links alike)
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

"""What is made once for all who ask: the first process to ask makes it while the others wait."""

import contextlib
import fcntl
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[int]:
    """Within, no other process is that asks with the same file. A child that is given the
    descriptor keeps them out until it ends, also where this process is killed before."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def make_once(place: Path, name: str, command: Sequence[object]) -> Path:
    """The directory `place/name`, which `python *command directory` has filled. Nobody is to write
    to it: who asks for it after that is told so."""
    directory, done = place / name, place / f"{name}.done"
    with alone(place / f"{name}.lock") as held:
        if not done.exists():
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
            command = [sys.executable, "-P", *map(str, command), str(directory)]
            subprocess.run(command, check=True, capture_output=True, pass_fds=[held])
            beside = done.with_suffix(".new")
            beside.write_text(content(directory))
            beside.rename(done)  # whole, or not there
        assert content(directory) == done.read_text(), f"somebody has written to {directory}"
    return directory


def content(directory: Path) -> str:
    """A line for each path below: its size, and when it was last written to."""
    found = {path.relative_to(directory): path.stat() for path in sorted(directory.rglob("*"))}
    return "\n".join(f"{path} {stat.st_size} {stat.st_mtime_ns}" for path, stat in found.items())

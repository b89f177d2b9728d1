"""What a model server holds of a graph: measured in a process of its own."""

import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from training.publishing.saved_model import Session
from training.publishing.trials import Trials

_SECONDS = 600  # to load it and to answer every signature once


class NotHeld(Exception):
    """The process did not come to its end: it lacked the memory, say."""


def held_bytes(directory: Path, tags: Sequence[str], asked: Trials) -> int:
    """By how much a process grows that loads the SavedModel's graph with these tags and answers one
    row of each of its signatures: what stays resident afterwards. On Linux.

    asked: requests for each signature.
    Raises NotHeld.

    >>> held_bytes(Path("model_repository/digits/1"), ("serve",), {})  # doctest: +SKIP
    9437184
    """
    rows = {
        signature: {name: array[:1] for name, array in trial.inputs.items()}
        for signature, trial in asked.items()
    }
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", __name__],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            input=pickle.dumps((directory, tags, rows)),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise NotHeld(f"every signature takes more than {_SECONDS} s in all") from None
    if done.returncode:
        raise NotHeld(f"a process that answers every signature ends with status {done.returncode}")
    return int(done.stdout)


def _main() -> None:
    directory, tags, rows = pickle.load(sys.stdin.buffer)
    before = _resident()
    with Session(directory, tags) as session:
        for signature, inputs in rows.items():
            session.run(signature, inputs)
        print(_resident() - before)


def _resident() -> int:
    """Bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    _main()

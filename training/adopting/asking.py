"""A SavedModel, asked in a process of its own: what a stranger's graph computes may have no end,
which TensorFlow's own timeout does not stop, or may end the process that computes it.
"""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

from training.adopting import saved_models
from training.errors import CannotAdopt, TrainingError
from training.publishing.trials import Trial, Trials

_SECONDS = 120  # of computing, for each step: to load it, to answer a request of some rows
_WAIT_S = 4 * _SECONDS  # until an answer is there, computed or not: others compute here, too

Answered = tuple[Trials, list[str]]


class Asker:
    """A process that loads SavedModels and asks them; a context manager, at whose end it ends.

    >>> with Asker() as asker:  # doctest: +SKIP
    ...     asker.ask(Path("pets"), Path("pets"), {})
    Traceback (most recent call last):
    training.errors.CannotAdopt: no signature of pets answers (): if it is whole, say --sample \
ROWS.npz, with an array for each input of rows that it takes
    """

    def __init__(self) -> None:
        self._connection, theirs = Pipe()
        found = os.pathsep.join(filter(None, sys.path))
        # In a process group of its own: Ctrl-C is for us, who end it.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, str(theirs.fileno())],
            env=os.environ | {"PYTHONPATH": found},
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            process_group=0,
        )
        theirs.close()

    def ask(
        self, source: Path, directory: Path, requests: Mapping[str, Sequence[Trial]]
    ) -> Answered:
        """As `saved_models.ask` does. Raises CannotAdopt also where a step has no end, or ends the
        process."""
        step = "to be loaded"
        try:
            self._connection.send((source, directory, requests, _SECONDS, _WAIT_S))
            while isinstance(said := self._connection.recv(), str):
                step = said
        except (EOFError, ConnectionError):  # it is no more
            raise CannotAdopt(f"{source} {self._end(step)}") from None
        if isinstance(said, TrainingError):
            raise said
        answered: Answered = said
        return answered

    def _end(self, step: str) -> str:
        status = self._process.wait()
        if status == -signal.SIGXCPU:
            return (
                f"takes more than {_SECONDS} s of computing {step}: if it does end, say --sample "
                f"ROWS.npz with fewer or smaller rows; else export it without the loop"
            )
        how = f"in {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        return (
            f"ends the process {how} when it is {step}, as it would a model server: if it is "
            f"whole, say --sample ROWS.npz with rows that it takes"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.kill()
        self._process.wait()


def _answer(connection: Connection) -> None:
    """Do what is asked, until nobody asks any more."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        try:
            source, directory, requests, seconds, wait_s = connection.recv()
        except EOFError:
            return

        def begin(step: str, seconds: int = seconds) -> None:
            _allow(seconds)
            connection.send(step)

        begin("to be loaded")
        try:
            connection.send(saved_models.ask(source, directory, requests, begin, wait_s))
        except TrainingError as error:
            connection.send(error)


def _allow(seconds: int) -> None:
    """So much more computing; the time that a slow disk or other processes take is not counted."""
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    allowed = int(time.process_time()) + seconds
    resource.setrlimit(
        resource.RLIMIT_CPU,
        (allowed if most == resource.RLIM_INFINITY else min(allowed, most), most),
    )


if __name__ == "__main__":
    _answer(Connection(int(sys.argv[1])))

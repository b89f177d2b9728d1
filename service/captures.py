"""What a gateway has captured, read back."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sluice.wire.prediction_logs import Logged, read_log
from sluice.wire.tfrecords import SUFFIX, BadRecord, read_frames


class NoCaptures(Exception):
    """There are none where they were looked for."""


class Captured(NamedTuple):
    """One request: its place among the records of a file, from 1, and its size there, bytes."""

    file: Path
    number: int
    size: int
    logged: Logged


class Captures:
    """The requests in a file of captures, or in those of a directory, oldest first, each time that
    it is iterated. `faults` are what could not be read the last time, and why.

    Raises NoCaptures for a directory without any, OSError for one that cannot be listed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.faults: list[str] = []
        self._files = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
        if not self._files:
            raise NoCaptures(
                f"{path} holds no captures (*{SUFFIX}); a gateway writes them to where its "
                "SLUICE_CAPTURE_DIR says"
            )

    def __iter__(self) -> Iterator[Captured]:
        self.faults.clear()
        for file in self._files:
            try:
                yield from self._read(file)
            except BadRecord as error:
                self.faults.append(f"{file}: {error}; what comes before it is read")
            except OSError as error:
                self.faults.append(f"{file} cannot be read ({error.strerror})")

    def _read(self, file: Path) -> Iterator[Captured]:
        with file.open("rb") as opened:
            for number, record in enumerate(read_frames(opened), start=1):
                try:
                    logged = read_log(record)
                except BadRecord as error:
                    self.faults.append(f"{file}: record {number}: {error}")
                    continue
                yield Captured(file, number, len(record), logged)

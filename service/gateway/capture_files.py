"""The files of captured requests: TFRecords in a directory that keeps to its bounds.

Each worker appends to a file of its own, whose name says when it was begun, and begins another
once that is an eighth of its part of what the directory may hold, or of how old it may be. Before
it does, it deletes the oldest, whoever wrote them. What is larger than such a file is not written.
"""

import os
import re
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from sluice.wire.tfrecords import SUFFIX

PARTS = 8
AT_ONCE = 1024  # pieces that the system takes in one call
LOOK_EVERY_S = 60.0
# To the microsecond, so that they sort as they were begun: a busy worker begins several a second.
_BEGUN = "%Y%m%dT%H%M%S.%fZ"
_NAME = re.compile(rf"(\d{{8}}T\d{{6}}(?:\.\d{{6}})?Z)-[0-9a-f]{{8}}{re.escape(SUFFIX)}")


class _Open(NamedTuple):
    descriptor: int
    begun: float  # seconds since 1970


class CaptureFiles:
    """Those of one worker, of `writers` that share the directory. For one thread.

    Together they stay within `max_bytes`, and nothing older than `max_age_s` stays.
    """

    def __init__(self, directory: Path, max_bytes: int, max_age_s: float, writers: int) -> None:
        self.directory = directory
        self.most = max_bytes // (PARTS * writers)  # bytes of a file
        self._kept = max_bytes - writers * self.most  # beside what each may still append
        self._max_age_s = max_age_s
        self._file: _Open | None = None
        self._size, self._looked = 0, 0.0

    def append(self, frames: Sequence[bytes]) -> None:
        """Write these, of at most `most` bytes, all or none. Raises OSError."""
        size = sum(map(len, frames))
        file = self._file
        if file is None or self._size + size > self.most or self._is_gone(file):
            self._begin()
        try:
            for start in range(0, len(frames), AT_ONCE):
                self._write(frames[start : start + AT_ONCE])
        except OSError:
            if self._file is not None:
                os.ftruncate(self._file.descriptor, self._size)
            raise
        self._size += size

    def look(self) -> None:
        """Let go of what is too old. Raises OSError."""
        now = time.time()
        every_s = min(LOOK_EVERY_S, self._max_age_s / PARTS)
        if now - self._looked < every_s:
            return
        self._looked = now
        if self._file is not None and now - self._file.begun > self._max_age_s / PARTS:
            self.close()
        self._prune(now)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file.descriptor)
            self._file = None

    def _begin(self) -> None:
        self.close()
        now = time.time()
        self._prune(now)
        begun = datetime.fromtimestamp(now, UTC).strftime(_BEGUN)
        path = self.directory / f"{begun}-{secrets.token_hex(4)}{SUFFIX}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._file, self._size = _Open(os.open(path, flags, 0o600), now), 0

    def _write(self, frames: Sequence[bytes]) -> None:
        """As they lie: to join them in new memory costs as much as to write them."""
        assert self._file is not None
        descriptor = self._file.descriptor
        written = os.writev(descriptor, frames)
        if written < sum(map(len, frames)):
            left = memoryview(b"".join(frames))[written:]
            while left:
                left = left[os.write(descriptor, left) :]

    def _prune(self, now: float) -> None:
        found = sorted(self._found())
        held = sum(size for _, size, _ in found)
        for begun, size, path in found:
            if held <= self._kept and now - begun <= self._max_age_s:
                return
            path.unlink(missing_ok=True)
            held -= size

    def _found(self) -> Iterator[tuple[float, int, Path]]:
        """When each was begun, its bytes and its path."""
        for path in self.directory.iterdir():
            name = _NAME.fullmatch(path.name)
            if name is None:
                continue
            try:
                begun = datetime.fromisoformat(name[1]).timestamp()
                found = begun, path.stat().st_size, path
            except ValueError:  # no date, so it is none of ours
                continue
            except FileNotFoundError:  # another worker was faster
                continue
            yield found

    @staticmethod
    def _is_gone(file: _Open) -> bool:
        """Whether somebody has deleted it meanwhile."""
        return os.fstat(file.descriptor).st_nlink == 0


def check_directory(path: Path) -> None:
    """Make it where it is not there. Raises OSError where nothing can be written to it."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
        pass

"""Answered requests, written down: for warm-up files, and to be asked again of another version.

    event loop   is it one of those? → in line; of small ones, some at a time → capture_records.py
    thread       some times a second: the line → capture_records.py → capture_files.py

No request waits for it: where the line is full, or the disk takes no more, what would be written is
dropped and counted. A record holds the inputs as the model got them, which version answered, and
when; nothing of who asked. What was not answered is not written: a model server does not load a
version that has such a request in its warm-up file.
"""

import atexit
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from service.gateway.caller import Caller
from service.gateway.capture_files import CaptureFiles, check_directory
from service.gateway.capture_records import FORWARDED, Records
from service.gateway.patterns import named_by
from service.gateway.settings import Settings
from service.gateway.sizes import keep_little, kept_by
from service.gateway.telemetry import Telemetry
from service.gateway.traffic import Inputs, Kind
from service.gateway.variables import InvalidSetting, environment_variable
from sluice.wire.model_ref import ModelRef
from sluice.wire.tfrecords import frame

MOST_IN_LINE, MOST_BYTES_IN_LINE = 4096, 64 << 20
WRITE_EVERY_S = 0.2
# Of requests that keep so little, bytes, the event loop makes records, so many at a time: from the
# second one on all that this takes is in the cache, and what they keep is free again in the thread
# that made it. In the other thread both would cost more, and either would wait for the interpreter.
SMALL, AT_A_TIME = 1 << 14, 32
# Where more than so many are in line they are written at once: the thread would hold up the event
# loop for as long as it makes records of them.
WRITE_AT = 128
CHUNK = 1 << 20  # bytes of one write
CLOSE_S = 5.0
TELL_EVERY_S = 60.0  # of the same trouble in the log

log = logging.getLogger(__name__)


class _Taken(NamedTuple):
    """One request in line, or some small ones, which keep so many bytes; `frames` makes their
    records."""

    size: int
    frames: Callable[[], Sequence[bytes]]


class _Trouble:
    """Of one kind, and when the log was told of it last."""

    def __init__(self) -> None:
        self._told_at = -TELL_EVERY_S
        self._is_told = False

    def is_to_be_told(self) -> bool:
        """Whether it is new, and was not told just before."""
        now = time.monotonic()
        if self._is_told or now - self._told_at < TELL_EVERY_S:
            return False
        self._is_told, self._told_at = True, now
        return True

    def is_over(self) -> bool:
        """Whether that is to be told too."""
        was_told, self._is_told = self._is_told, False
        return was_told


class NoCapture:
    """Writes nothing down."""

    def answered(self, kind: Kind, inputs: Inputs, version: int, caller: Caller) -> None:
        pass

    def forwarded(self, method: str, request: bytes, model: ModelRef, caller: Caller) -> None:
        pass

    def close(self) -> None:
        pass


class Capture:
    """What one worker writes down; its thread begins with the first request, after any fork."""

    def __init__(self, settings: Settings, telemetry: Telemetry) -> None:
        self._files = CaptureFiles(
            Path(settings.capture_dir),
            settings.capture_max_bytes,
            settings.capture_max_age_s,
            settings.workers,
        )
        self._telemetry, self._share = telemetry, settings.capture_share
        self._all_of_model = named_by(settings.capture_models)
        self._all_of_key = named_by(settings.capture_keys)
        self._records = Records(settings.capture_leave_out)
        self._line: deque[_Taken] = deque()
        self._small: deque[tuple[Kind, Inputs, int]] = deque()  # on their way into it
        self._came, self._went = 0, 0  # bytes in and out of line, each counted by one thread
        self._thread: threading.Thread | None = None
        self._wake, self._closing = threading.Event(), False
        self._disk, self._unmade = _Trouble(), _Trouble()

    def answered(self, kind: Kind, inputs: Inputs, version: int, caller: Caller) -> None:
        """A version has answered these inputs."""
        if not self._is_wanted(kind.model.name, caller):
            return
        if keep_little(inputs, SMALL):
            self._small.append((kind, inputs, version))
            if len(self._small) >= AT_A_TIME:
                frames = [*self._small_frames()]
                self._put(_Taken(sum(map(len, frames)), lambda: frames), len(frames))
        else:
            encode = partial(self._records.answered, kind, inputs, version, int(time.time()))
            self._put(_Taken(kept_by(inputs), lambda: self._framed_record(encode)))
        self._begin()

    def forwarded(self, method: str, request: bytes, model: ModelRef, caller: Caller) -> None:
        """A serialized request of "/SERVICE/METHOD" about examples has been answered."""
        if method in FORWARDED and self._is_wanted(model.name, caller):
            encode = partial(self._records.forwarded, method, request, model, int(time.time()))
            self._put(_Taken(len(request), lambda: self._framed_record(encode)))
            self._begin()

    def close(self) -> None:
        """Write what is in line, and end."""
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def _is_wanted(self, model: str, caller: Caller) -> bool:
        if self._share >= 1 or random.random() < self._share or self._all_of_model(model):
            return True
        key = caller.grant.id
        return bool(key and self._all_of_key(key))

    def _put(self, taken: _Taken, requests: int = 1) -> None:
        held = self._came - self._went + taken.size
        if len(self._line) >= MOST_IN_LINE or held > MOST_BYTES_IN_LINE:
            self._telemetry.captured("line", requests)
            return
        self._line.append(taken)
        self._came += taken.size
        if len(self._line) % WRITE_AT == 0 or held > MOST_BYTES_IN_LINE // 2:
            self._wake.set()

    def _begin(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
            self._thread.start()
            atexit.register(self.close)

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait(WRITE_EVERY_S)
            self._wake.clear()
            for frames in self._frames():
                self._write(frames)
            self._try(self._files.look)
        for frames in self._frames():
            self._write(frames)
        self._files.close()

    def _frames(self) -> Iterator[list[bytes]]:
        """What is in line, as it is written at once."""
        frames: list[bytes] = []
        size, most = 0, self._files.most
        at_once = min(CHUNK, most)
        for framed in self._framed():
            if len(framed) > most:
                self._telemetry.captured("size", 1)
                continue
            if frames and size + len(framed) > at_once:
                yield frames
                frames, size = [], 0
            frames.append(framed)
            size += len(framed)
        self._records.forget()
        if frames:
            yield frames

    def _framed(self) -> Iterator[bytes]:
        while self._line:
            taken = self._line.popleft()
            yield from taken.frames()
            self._went += taken.size
        yield from self._small_frames()

    def _small_frames(self) -> Iterator[bytes]:
        """Of small requests that have none yet; for either thread."""
        seconds = int(time.time())
        while self._small:
            try:
                kind, inputs, version = self._small.popleft()
            except IndexError:  # the other thread was faster
                return
            encode = partial(self._records.answered, kind, inputs, version, seconds)
            yield from self._framed_record(encode)

    def _framed_record(self, encode: Callable[[], bytes]) -> list[bytes]:
        """None where no record can be made, which is a bug of ours: neither the request pays for it
        nor those in line behind it."""
        try:
            return [frame(encode())]
        except Exception:
            self._telemetry.captured("record", 1)
            if self._unmade.is_to_be_told():
                log.exception(
                    "No record can be made of a captured request: such ones are dropped, and "
                    "counted; requests are answered as before"
                )
            return []

    def _write(self, frames: list[bytes]) -> None:
        if self._try(partial(self._files.append, frames)):
            self._telemetry.captured("written", len(frames))
            if self._disk.is_over():
                log.info("Captures are written to %s again", self._files.directory)
        else:
            self._telemetry.captured("disk", len(frames))

    def _try(self, work: Callable[[], None]) -> bool:
        """Whether the disk lets it; that it does not is said in the log, once until it does."""
        try:
            work()
        except OSError as error:
            if self._disk.is_to_be_told():
                log.error(
                    "Captures cannot be written to %s (%s): they are dropped, and counted, until "
                    "they can; requests are answered as before",
                    self._files.directory,
                    error.strerror,
                )
            return False
        return True


NO_CAPTURE = NoCapture()
AnyCapture = NoCapture | Capture


def capture_of(settings: Settings, telemetry: Telemetry) -> AnyCapture:
    """What the settings ask for."""
    return Capture(settings, telemetry) if settings.capture_dir else NO_CAPTURE


def samples_of(settings: Settings, telemetry: Telemetry) -> AnyCapture:
    """What keeps the requests that a rollout's next version answers otherwise."""
    every = replace(
        settings,
        capture_dir=settings.shadow_dir,
        capture_max_bytes=settings.shadow_max_bytes,
        capture_share=1.0,
    )
    return capture_of(every, telemetry)


def check_capture(settings: Settings) -> None:
    """Raises InvalidSetting for a directory that nothing can be written to."""
    for name in ("capture_dir", "shadow_dir"):
        directory = getattr(settings, name)
        if not directory:
            continue
        try:
            check_directory(Path(directory))
        except OSError as error:
            raise InvalidSetting(
                f"{environment_variable(name)}: nothing can be written to {directory} "
                f"({error.strerror})"
            ) from None

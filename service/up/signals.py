"""Being told to stop by a signal, without a lock.

Python runs a handler in the main thread between two of its steps, so also where that thread holds
a lock: `threading.Event.set()` in a handler takes the lock that `Event.wait()` may hold just then,
and the process hangs. So a handler here sets an attribute, and the wait is one for a file
descriptor, which C writes to (`signal.set_wakeup_fd`) before Python runs anything.
"""

import os
import select
import signal
from collections.abc import Iterable
from types import FrameType, TracebackType
from typing import Self

TO_STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StopSignals:
    """Inside the block, in the main thread: whether one of `signals` has come, and a wait for it.

    SIGHUP stays ignored where it is (under nohup); SIGINT, which a script's `&` has ignored, does
    not, as whoever sends it means it. After the block all are ignored: what is left to do is to
    end, and to be asked again changes nothing.
    """

    def __init__(self, signals: Iterable[signal.Signals] = TO_STOP) -> None:
        under_nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        self._signals = [each for each in signals if not (under_nohup and each == signal.SIGHUP)]
        self.received: signal.Signals | None = None

    def __enter__(self) -> Self:
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        for each in self._signals:
            signal.signal(each, self._handle)
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        for each in self._signals:
            signal.signal(each, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        os.close(self._read_end)
        os.close(self._write_end)

    def wait(self, seconds: float) -> bool:
        """Whether one has come, within `seconds` at the latest."""
        if self.received is None:
            # What was written is left there: from the first signal on nobody waits again.
            select.select([self._read_end], [], [], seconds)
        return self.received is not None

    def _handle(self, number: int, _: FrameType | None) -> None:
        self.received = self.received or signal.Signals(number)

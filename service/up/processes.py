"""A child process that is named in the logs, remembers its last words and leaves nothing behind.

`sluice up` starts two children in an order, with a condition between them, stops them in the other
order, starts one again that died and gives up in the end, with its last lines. honcho 2.0.0 starts
all at once and stops all at once; tried with a child that took 12 s to drain, it killed it after 5
(KILL_WAIT, a constant). circus 0.19.0 and supervisord 4.3.0, by their documentation, are daemons
that go on whatever dies, with a socket to be told by; circus brings pyzmq and tornado.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence

from service.up import leash
from service.up.output import say

LAST_LINES = 20


class Child:
    """A running process in a group of its own: a terminal's Ctrl-C reaches the parent alone,
    which then stops its children in their order. It ends with its parent, even by SIGKILL.

    To be made in the main thread: with the thread that made it, it would end too.
    """

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), *command],
            env=os.environ | dict(environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            encoding="utf-8",
            errors="replace",
        )
        self._reader = threading.Thread(target=self._pass_on_output, daemon=True)
        self._reader.start()

    @property
    def exit_status(self) -> int | None:
        """None while it runs; the negative signal number where a signal ended it."""
        return self._process.poll()

    def stop(self, within_s: float) -> None:
        """SIGTERM, and SIGKILL to the whole group for what is left after `within_s` seconds."""
        if self.exit_status is None:
            self._process.terminate()
            try:
                self._process.wait(within_s)
            except subprocess.TimeoutExpired:
                say(f"The {self.name} did not stop within {within_s:g} s; killing it")
        self._kill_group()
        self._process.wait()
        self._reader.join(timeout=1)

    def ending(self) -> str:
        """How it ended; only for one that has."""
        status = self._process.returncode
        how = f"by signal {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        return f"The {self.name} ended {how}"

    def last_words(self) -> str:
        """How it ended, and what it said last."""
        self._reader.join(timeout=1)
        return "\n".join(
            [f"{self.ending()}; its last lines:", *(f"    {line}" for line in self.last_lines)]
        )

    def _pass_on_output(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self.last_lines.append(line.rstrip("\n"))
                say(line, self.name)

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # the group ended with its leader
            os.killpg(self._process.pid, signal.SIGKILL)

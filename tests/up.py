"""`sluice up` as a user starts it."""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from tests.processes import START_TIMEOUT_S, free_port, leashed

READY = "Try:|No model is in"


class Up:
    """A running `sluice up`; in a `terminal` (its end of a pty) the log is there alone. `within`:
    the start of a command line that runs another."""

    def __init__(
        self,
        repository: Path,
        terminal: int | None = None,
        within: Sequence[str] = (),
        flags: Sequence[str] = (),
        **environment: str,
    ) -> None:
        self.http_port, self.grpc_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.http_port}"
        self._lines: list[str] = []
        self.process = subprocess.Popen(
            leashed(
                *([] if terminal is None else ["setsid", "--ctty"]),
                *within,
                *(sys.executable, "-P", "-m", "service.cli", "up"),
                f"--model-repository={repository}",
                f"--http-port={self.http_port}",
                f"--grpc-port={self.grpc_port}",
                *flags,
            ),
            stdin=terminal,
            stdout=subprocess.PIPE if terminal is None else terminal,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=repository,
            env=os.environ | environment,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self._lines.append(line)

    @property
    def log(self) -> str:
        return "".join(self._lines)

    def wait_until(
        self, condition: Callable[[], object], timeout_s: float = START_TIMEOUT_S
    ) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)

    def wait_for(self, pattern: str, timeout_s: float = START_TIMEOUT_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not re.search(pattern, self.log):
            assert self.process.poll() is None or self._reader.is_alive(), self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)

    def family(self) -> list[psutil.Process]:
        """Every process below this one."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def child(self, words: str) -> psutil.Process | None:
        """The eldest process below whose command line holds `words`."""
        return next((each for each in self.family() if words in " ".join(each.cmdline())), None)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        status = self.process.wait(60)
        self._reader.join()
        if self.process.stdout:
            self.process.stdout.close()
        return status

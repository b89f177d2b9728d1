"""Real processes of ours, as the suites start them: model servers and gateways."""

import contextlib
import functools
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from service.up import leash

ROOT = Path(__file__).parents[1]
PORTS, PORTS_OF_A_PROCESS = range(20_000, 32_000), 200
START_TIMEOUT_S = 300  # of what loads TensorFlow, on a machine that does much else
RUNNING = re.compile(r"Running gRPC ModelServer at \S+:(\d+)")


def needs_make_serve() -> None:
    """Skip where it would install first, or into the environment of another checkout."""
    if (ROOT / ".venv").is_symlink() or not (ROOT / ".venv/.installed").exists():
        pytest.skip("make serve has not set .venv up here")


def leashed(*command: str) -> list[str]:
    """The command as one that does not outlive this process, even where that is killed."""
    return [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), *command]


class ModelServerProcess:
    """A real `python -m service.modelserver`. `within`: the start of a command line that runs
    another."""

    def __init__(self, *flags: str, within: Sequence[str] = ()) -> None:
        self._start([*within, sys.executable, "-m", "service.modelserver", "--port=0", *flags])

    def _start(self, command: list[str], variables: Mapping[str, str] | None = None) -> None:
        self._lines: list[str] = []
        self.process = subprocess.Popen(
            command,
            env=os.environ | (variables or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def log(self) -> str:
        """What it has written so far. Joined when it is asked for: a text that grows by each line
        is copied for each, which after a minute of load takes half a core from what is measured."""
        return "".join(self._lines)

    @property
    def port(self) -> int:
        found = RUNNING.search(self.log)
        assert found, self.log
        return int(found[1])

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def wait_for(self, text: str, timeout_s: float = START_TIMEOUT_S) -> None:
        """Until the log holds `text`, a regular expression."""
        deadline = time.monotonic() + timeout_s
        while not re.search(text, self.log):
            ended = self.process.poll() is not None and not self._reader.is_alive()
            if ended or time.monotonic() > deadline:
                raise AssertionError(f"{text!r} was not logged:\n{self.log}")
            time.sleep(0.02)

    def terminate(self, timeout_s: float = 60) -> int:
        """SIGTERM, then the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait(timeout_s)

    def wait(self, timeout_s: float = 60) -> int:
        """The exit status of a server that ends."""
        try:
            status = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self._reader.join()
        self.process.stdout.close()
        return status

    def _read(self) -> None:
        for line in self.process.stdout:
            self._lines.append(line)


class GatewayProcess(ModelServerProcess):
    """A real `sluice gateway`: gunicorn, its workers, and `url`, where they answer."""

    up = "Answering HTTP"  # what it logs once it is

    def __init__(self, model_server: str, **settings: object) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        settings = {"http_host": "127.0.0.1"} | settings
        settings |= {"model_server": model_server, "http_port": self.url.rpartition(":")[2]}
        variables = {f"SLUICE_{name.upper()}": str(value) for name, value in settings.items()}
        self._start([sys.executable, "-P", "-m", *self._command()], variables)

    def _command(self) -> list[str]:
        return ["service.cli", "gateway"]


class PlainGatewayProcess(GatewayProcess):
    """The Flask application alone, under gunicorn's threads as under any WSGI server."""

    up = "Booting worker"

    def _command(self) -> list[str]:
        return [
            "gunicorn",
            f"--bind={self.url.removeprefix('http://')}",
            "--worker-class=gthread",
            "--threads=8",
            "--no-control-socket",
            "service.gateway.app:from_environment()",
        ]


# By name, the ways in which HTTP is answered, and which are to give the same answers.
WAYS = {"front": GatewayProcess, "wsgi": PlainGatewayProcess}


def free_port() -> int:
    """One that no other process of the suites' is given, nor this one again before all of its own
    have had their turn: a server takes it only a while after it was found to be free."""
    for _ in range(PORTS_OF_A_PROCESS):
        port = next(_own_ports())
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("0.0.0.0", port))
            return port
    raise OSError("none of this process's ports is free")


@functools.cache
def _own_ports() -> Iterator[int]:
    """Of those that the system gives to no client, in turn. They are this process's while it lives:
    it holds the first of them for datagrams, which no server here listens for."""
    for first in PORTS[::PORTS_OF_A_PROCESS]:
        with socket.socket(type=socket.SOCK_DGRAM) as claim, contextlib.suppress(OSError):
            claim.bind(("127.0.0.1", first))
            claim.detach()
            return itertools.cycle(range(first, first + PORTS_OF_A_PROCESS))
    raise OSError("every port of the suites' is another process's")

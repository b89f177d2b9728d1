"""`sluice up` as a user starts it, and clients that load it."""

import json
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.processes import (
    RUNNING,
    GatewayProcess,
    ModelServerProcess,
    free_port,
)
from tests.system import toy_server
from tests.system.certificates import Folder
from tests.up import READY, Up


@pytest.fixture
def up() -> Iterator[Callable[..., Up]]:
    """`up(repository, **options)` -> a ready Up; stopped at the end, with all its family."""
    started = []

    def start(repository: Path, ready: bool = True, **options: Any) -> Up:
        running = Up(repository, **options)
        started.append(running)
        if ready:
            running.wait_for(READY)
        return running

    yield start
    for running in started:
        running.stop()


@pytest.fixture(name="free_port")
def free_port_fixture() -> int:
    return free_port()


def ask(url: str, body: bytes, content_type: str) -> tuple[str, object]:
    """("answered", document), ("refused", why) if no connection came about, else ("lost", why)."""
    request = urllib.request.Request(url, body, {"Content-Type": content_type})
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return "answered", json.load(reply)
    except urllib.error.HTTPError as error:
        return "lost", f"{error.code} {error.read()!r}"
    except urllib.error.URLError as error:
        refused = isinstance(error.reason, ConnectionRefusedError)
        return ("refused" if refused else "lost"), repr(error.reason)
    except OSError as error:
        return "lost", repr(error)


class Load:
    """Clients that ask the same thing over and over, each request on a connection of its own."""

    def __init__(
        self, url: str, body: bytes, content_type: str, clients: int, requests: int
    ) -> None:
        self.outcomes: list[tuple[str, object]] = []
        self._pool = ThreadPoolExecutor(clients)
        self._jobs = [
            self._pool.submit(self._one, url, body, content_type) for _ in range(requests)
        ]

    def _one(self, url: str, body: bytes, content_type: str) -> None:
        self.outcomes.append(ask(url, body, content_type))

    def wait_until(self, count: int) -> None:
        """Until so many requests have an outcome."""
        deadline = time.monotonic() + 60
        while len(self.outcomes) < count:
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def end(self) -> dict[str, list[object]]:
        """The same of those that have begun; no other does."""
        self._jobs = [job for job in self._jobs if not job.cancel()]
        return self.finish()

    def finish(self) -> dict[str, list[object]]:
        """What became of all requests, by outcome."""
        for job in self._jobs:
            job.result()
        self._pool.shutdown()
        return {
            kind: [what for each, what in self.outcomes if each == kind]
            for kind in ("answered", "refused", "lost")
        }


@pytest.fixture
def repository(published: Path, tmp_path: Path) -> Path:
    """A model repository with version 1 of `digits`."""
    shutil.copytree(published, tmp_path / "digits")
    return tmp_path


@pytest.fixture
def image(published: Path) -> bytes:
    """A picture of a 3, as a PNG file."""
    return (published / "1/samples/3-0.png").read_bytes()


@pytest.fixture(scope="session")
def load() -> type[Load]:
    return Load


class ToyServer(ModelServerProcess):
    """A real toy_server.py; `flags` are its own."""

    def __init__(self, *flags: str) -> None:
        self._start([sys.executable, toy_server.__file__, *flags])


@pytest.fixture
def launch_toy() -> Iterator[Callable[..., ToyServer]]:
    """`launch_toy(*flags)` -> a running ToyServer, ended with the test."""
    launched = []

    def launch(*flags: str) -> ToyServer:
        launched.append(ToyServer(*flags))
        launched[-1].wait_for(RUNNING.pattern)
        return launched[-1]

    yield launch
    for server in launched:
        server.process.kill()
        server.wait()


class FrontProcess(GatewayProcess):
    """A GatewayProcess with an admin port."""

    def __init__(self, model_server: str, **settings: object) -> None:
        self.admin_port = free_port()
        super().__init__(model_server, admin_port=self.admin_port, **settings)
        self.http_port = int(self.url.rpartition(":")[2])


@pytest.fixture
def launch_front() -> Iterator[Callable[..., FrontProcess]]:
    """`launch_front(model_server_address, workers=2, **settings)` -> a FrontProcess, all of whose
    workers are up; ended with the test."""
    launched = []

    def launch(model_server: str, workers: int = 2, **settings: object) -> FrontProcess:
        gateway = FrontProcess(model_server, workers=workers, **settings)
        launched.append(gateway)
        gateway.wait_for("(?s)" + ".*".join(["Answering HTTP"] * workers))
        return gateway

    yield launch
    for gateway in launched:
        gateway.terminate()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Of the test's own certificates."""
    return Folder(tmp_path)


@pytest.fixture
def launch_tls(folder: Folder, launch_toy, launch_front) -> Callable[..., FrontProcess]:
    """`launch_tls(**settings)` -> a gateway over TLS before a toy server, with its gRPC port."""

    def start(**settings: object) -> FrontProcess:
        port = free_port()
        given = folder.settings() | {"grpc_port": port, "workers": 1, "public_metrics": "off"}
        gateway = launch_front(launch_toy().address, **given | settings)
        gateway.grpc_port = port
        return gateway

    return start

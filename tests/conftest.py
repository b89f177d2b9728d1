"""What several suites need: the recorded models, and real model server processes."""

import contextlib
import functools
import hashlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes is the machine's affair: no test asserts a time (CONTRIBUTING.md).
settings.register_profile("sluice", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("sluice")

CONFORMANCE = Path(__file__).parent / "conformance"
RUNNING = re.compile(r"Running gRPC ModelServer at \S+:(\d+)")


class ModelServerProcess:
    """A real `python -m service.modelserver`; `log` is what it has written so far."""

    def __init__(self, *flags: str) -> None:
        self.log = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service.modelserver", "--port=0", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def port(self) -> int:
        found = RUNNING.search(self.log)
        assert found, self.log
        return int(found[1])

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def wait_for(self, text: str, timeout_s: float = 90) -> None:
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
            self.log += line


LaunchModelServer = Callable[..., ModelServerProcess]


@pytest.fixture(scope="session")
def launch_modelserver() -> Iterator[LaunchModelServer]:
    """`launch_modelserver(*flags, ready=True)` -> a ModelServerProcess, ended with the session."""
    launched = []

    def launch(*flags: str, ready: bool = True) -> ModelServerProcess:
        server = ModelServerProcess(*flags)
        launched.append(server)
        if ready:
            server.wait_for(RUNNING.pattern)
        return server

    yield launch
    for server in launched:
        if server.process.poll() is None:
            server.process.kill()
            server.wait()


@pytest.fixture(scope="session")
def conformance_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models that the exchanges in conformance/ were recorded with, and models.config."""
    directory = tmp_path_factory.mktemp("conformance-models")
    subprocess.run(
        [sys.executable, CONFORMANCE / "make_models.py", directory], check=True, capture_output=True
    )
    return directory


@pytest.fixture(scope="session")
def modelserver(
    launch_modelserver: LaunchModelServer, conformance_models: Path
) -> ModelServerProcess:
    """The twin as the real server was started for the recording."""
    return launch_modelserver(
        f"--model_config_file={conformance_models}/models.config",
        "--allow_version_labels_for_unavailable_models=true",
        "--check_input_shapes=false",  # as there is no such check there
    )


class GatewayProcess(ModelServerProcess):
    """A real `sluice gateway`: gunicorn, its workers, and `url`, where they answer."""

    up = "Answering HTTP"  # what it logs once it is

    def __init__(self, model_server: str, **settings: object) -> None:
        self.log = ""
        self.url = f"http://127.0.0.1:{free_port()}"
        settings = {"http_host": "127.0.0.1"} | settings
        settings |= {"model_server": model_server, "http_port": self.url.rpartition(":")[2]}
        variables = {f"SLUICE_{name.upper()}": str(value) for name, value in settings.items()}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", *self._command()],
            env=os.environ | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

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
    """One of those that the system gives to no client, who could take it before its server does."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("0.0.0.0", port))
            return port


LaunchGateway = Callable[..., GatewayProcess]


@pytest.fixture(scope="session")
def launch_gateway() -> Iterator[LaunchGateway]:
    """`launch_gateway(model_server_address, way="front", **settings)` -> a GatewayProcess, up and
    ready; `way` is one of WAYS."""
    launched = []

    def launch(model_server: str, way: str = "front", **settings: object) -> GatewayProcess:
        defaults = {"workers": 1, "admin_port": 0, "public_metrics": "on"}
        gateway = WAYS[way](model_server, **defaults | settings)
        launched.append(gateway)
        gateway.wait_for(gateway.up)
        return gateway

    yield launch
    for gateway in launched:
        gateway.terminate()


@pytest.fixture(scope="session", params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """Each of WAYS in turn."""
    return request.param


@pytest.fixture(scope="session")
def gateways(launch_gateway: LaunchGateway, modelserver: ModelServerProcess):
    """`gateways(way)` -> the gateway of that way before the twin that serves the recorded models,
    made once."""
    return functools.cache(
        lambda way: launch_gateway(modelserver.address, way, models="affine,pair,echo")
    )


@pytest.fixture(scope="session")
def gateway(gateways: Callable[[str], GatewayProcess], way: str) -> GatewayProcess:
    """The gateway before the twin that serves the recorded models, once in each way."""
    return gateways(way)


@pytest.fixture(scope="session")
def launch_grpc_gateway(launch_gateway) -> Callable[..., tuple[GatewayProcess, str]]:
    """`launch_grpc_gateway(model_server_address, **settings)` -> (GatewayProcess, gRPC address)."""

    def launch(model_server: str, **settings: object) -> tuple[GatewayProcess, str]:
        port = free_port()
        gateway = launch_gateway(model_server, grpc_port=port, **settings)
        gateway.wait_for("Answering gRPC")
        return gateway, f"127.0.0.1:{port}"

    return launch


@pytest.fixture(scope="session")
def grpc_gateway(launch_grpc_gateway, modelserver) -> tuple[GatewayProcess, str]:
    """The gateway before the twin that serves the recorded models, and its gRPC address."""
    return launch_grpc_gateway(modelserver.address, models="affine")


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the model `digits`, trained for a few epochs and published as version 1."""
    repository = tmp_path_factory.mktemp("model-repository")
    subprocess.run(
        [
            sys.executable,
            "-P",
            "-m",
            "service.cli",
            "train",
            "digits",
            "--epochs=8",
            f"--model-repository={repository}",
        ],
        check=True,
        capture_output=True,
    )
    return repository / "digits"


@pytest.fixture(scope="session")
def installed(request: pytest.FixtureRequest) -> Callable[[Path], Path]:
    """`installed(requirements)` -> the bin folder of a virtual environment that holds what the file
    lists, made once and kept; another one when its text changes.

    SLUICE_CLIENT_ENVS names the directory of the environments; pytest's cache else.
    """
    root = Path(os.environ.get("SLUICE_CLIENT_ENVS") or request.config.cache.mkdir("client-envs"))

    def install(requirements: Path) -> Path:
        digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
        directory = root / f"{requirements.stem}-{digest}"
        done = directory / ".installed"
        if not done.exists():
            subprocess.run([sys.executable, "-m", "venv", directory], check=True)
            subprocess.run(
                [
                    directory / "bin" / "python",
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--disable-pip-version-check",
                    "-r",
                    requirements,
                ],
                check=True,
            )
            done.touch()
        return directory / "bin"

    return install

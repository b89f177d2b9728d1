"""`sluice up`: a model server and a gateway as children, started, watched and stopped in order."""

import http.client
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from service.up.processes import Child
from sluice.client import Client, ClientError
from sluice.wire.model_config import models_in, write_config
from sluice.wire.versions import find_versions

TENSORFLOW_MODEL_SERVER = "tensorflow_model_server"
POLL_S = 0.2
RESCAN_S = 1.0  # for models that are new in the repository, as often as TF Serving looks
START_TIMEOUT_S = 300.0
ASK_TIMEOUT_S = 2.0
STOP_MARGIN_S = 5.0


class StackError(Exception):
    """The two cannot come up, or not stay up; the message says why and what to do."""


class Supervisor:
    """Serve `repository` over HTTP and gRPC until SIGTERM or SIGINT, or until a child dies.

    http_host: where the gateway's own settings have it listen.
    drain_timeout_s: how long the gateway may take to answer what it has accepted.
    """

    def __init__(
        self,
        repository: Path,
        http_host: str,
        http_port: int,
        grpc_port: int,
        drain_timeout_s: float,
    ) -> None:
        self._repository, self._http_port, self._grpc_port = repository, http_port, grpc_port
        self._http_host = _dialled(http_host)
        self._grace_s = drain_timeout_s + STOP_MARGIN_S
        self._stopping = threading.Event()
        self._children: list[Child] = []
        self._work_dir = Path(tempfile.mkdtemp(prefix="sluice-"))
        self._config_file = self._work_dir / "models.config"
        self._names: list[str] = []

    def run(self) -> int:
        """The exit status: 0 when told to stop, 1 when it could not start or a child died."""
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signal_number, lambda *_: self._stopping.set())
        try:
            self._start()
            self._watch()
        except StackError as error:
            _say(str(error))
            return 1
        finally:
            self._stop()
        return 0

    def _start(self) -> None:
        _check_port_is_free(self._http_port, "--http-port", "HTTP_PORT")
        _check_port_is_free(self._grpc_port, "--grpc-port", "GRPC_PORT")
        self._rescan()
        self._start_child("model server", self._model_server_command())
        with Client(f"grpc://{self._model_server_address()}") as client:
            self._wait_for("the models to be AVAILABLE", lambda: self._models_are_available(client))
        self._start_child(
            "gateway",
            _python("service.cli", "gateway"),
            {
                "SLUICE_MODEL_SERVER": self._model_server_address(),
                "SLUICE_MODEL_CONFIG_FILE": str(self._config_file),
                "SLUICE_HTTP_PORT": str(self._http_port),
                **_metrics_on_the_public_port(),
            },
        )
        self._wait_for("the gateway to answer", lambda: _answers(self._http_host, self._http_port))
        if not self._stopping.is_set():
            _say(welcome(self._repository, self._names, self._http_port, self._grpc_port))

    def _watch(self) -> None:
        next_scan = time.monotonic()
        while not self._stopping.wait(POLL_S):
            self._check_children()
            if time.monotonic() >= next_scan:
                self._rescan()
                next_scan = time.monotonic() + RESCAN_S

    def _stop(self) -> None:
        """The gateway first: what it has accepted still needs the model server."""
        for child in reversed(self._children):
            child.stop(self._grace_s)
        shutil.rmtree(self._work_dir, ignore_errors=True)

    def _start_child(
        self, name: str, command: list[str], environment: dict[str, str] | None = None
    ) -> None:
        if not self._stopping.is_set():
            self._children.append(Child(name, command, environment))

    def _check_children(self) -> None:
        for child in self._children:
            if child.exit_status is not None:
                raise StackError(child.epitaph())

    def _wait_for(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._stopping.is_set():
            self._check_children()
            if condition():
                return
            if time.monotonic() > deadline:
                raise StackError(
                    f"waited {START_TIMEOUT_S:g} s for {what}, which did not happen; "
                    "the lines above may say why"
                )
            self._stopping.wait(POLL_S)

    def _rescan(self) -> None:
        try:
            names = models_in(self._repository)
        except OSError as error:
            raise StackError(f"{error.filename} cannot be read ({error.strerror})") from None
        if names != self._names or not self._config_file.exists():
            write_config(self._config_file, self._repository, names)
            self._names = names

    def _models_are_available(self, client: Client) -> bool:
        """Where there are no models, whether the server answers."""
        try:
            if not self._names:
                return client.ready(timeout_s=ASK_TIMEOUT_S)
            return all(client.ready(name, timeout_s=ASK_TIMEOUT_S) for name in self._names)
        except ClientError:  # it is still starting
            return False

    def _model_server_address(self) -> str:
        return f"127.0.0.1:{self._grpc_port}"

    def _model_server_command(self) -> list[str]:
        """The same flags either way; the embedded server is TensorFlow Serving's twin."""
        installed = shutil.which(TENSORFLOW_MODEL_SERVER)
        return [
            *([installed] if installed else _python("service.modelserver")),
            f"--port={self._grpc_port}",
            f"--model_config_file={self._config_file}",
            "--model_config_file_poll_wait_seconds=1",
            # Its default of 4 threads a core turns callers away while cores are idle.
            f"--grpc_max_threads={max(64, 16 * (os.cpu_count() or 1))}",
        ]


def welcome(repository: Path, names: list[str], http_port: int, grpc_port: int) -> str:
    """Where it listens, and commands to try on the first model."""
    lines = [f"HTTP on http://localhost:{http_port}, gRPC on localhost:{grpc_port}"]
    if not names:
        lines += [
            f"No model is in {repository} yet; train one and it is picked up:",
            f"    sluice train digits --model-repository {repository}",
        ]
        return "\n".join(lines)
    url = f"http://localhost:{http_port}/v1/models/{names[0]}"
    *_, newest = find_versions(repository / names[0]).values()
    samples = sorted(newest.glob("samples/*.png"))
    image = samples[0] if samples else "IMAGE.png"
    lines += [
        f"Serving {', '.join(names)} from {repository}. Try:",
        f"    curl {url}",
        f"    curl --data-binary @{image} -H 'Content-Type: image/png' {url}:predict",
        f"    curl -F image=@{image} {url}:predict",
    ]
    return "\n".join(lines)


def _metrics_on_the_public_port() -> dict[str, str]:
    """Unless these are set: a laptop has no use for a third port, and a second `sluice up` beside
    this one would not get it."""
    ours = {"SLUICE_ADMIN_PORT": "0", "SLUICE_PUBLIC_METRICS": "on"}
    return {name: os.environ.get(name, value) for name, value in ours.items()}


def _python(module: str, *arguments: str) -> list[str]:
    """-P keeps folders of the current directory from being taken for our packages."""
    return [sys.executable, "-P", "-m", module, *arguments]


def _check_port_is_free(port: int, option: str, variable: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise StackError(
                f"port {port} cannot be used ({error.strerror}); choose another with "
                f"{option} (make serve: {variable}=…)"
            ) from None


def _dialled(host: str) -> str:
    """Where to reach what listens at `host`.

    >>> _dialled("0.0.0.0"), _dialled("::"), _dialled("10.0.0.7")
    ('127.0.0.1', '::1', '10.0.0.7')
    """
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _answers(host: str, port: int) -> bool:
    """Asked whether it is alive, not whether it is ready: without a model it is not. That page is
    open whatever the settings close, and neither counted nor logged."""
    connection = http.client.HTTPConnection(host, port, timeout=ASK_TIMEOUT_S)
    try:
        connection.request("GET", "/v2/health/live")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):  # it is still starting
        return False
    finally:
        connection.close()


def _say(text: str) -> None:
    for line in text.splitlines():
        print(f"[sluice] {line}", file=sys.stderr, flush=True)

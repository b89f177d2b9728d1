"""`sluice up`: a model server and a gateway as children, started, watched and stopped in order."""

import http.client
import os
import shutil
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from service.up.models import ASK_TIMEOUT_S, Models
from service.up.output import say
from service.up.ports import dialled, port_problem
from service.up.services import GivenUp, Service
from service.up.signals import StopSignals
from service.up.welcome import welcome
from sluice.client import Client, ClientError

TENSORFLOW_MODEL_SERVER = "tensorflow_model_server"
POLL_S = 0.2
LOOK_S = 1.0  # at the repository and the models, as often as TensorFlow Serving looks
START_TIMEOUT_S = 300.0
LOADING_PATIENCE_S = 30.0  # for models that load, before those that are loaded are served
STOP_MARGIN_S = 5.0


class StackError(Exception):
    """The two cannot come up, or not stay up; the message says why and what to do."""


@dataclass(frozen=True)
class Options:
    """What `sluice up` is told.

    host: where HTTP and gRPC are listened on.
    asks_for_keys: whether the gateway does.
    tls: whether the gateway is told to speak HTTPS, with certificates of the user's.
    tls_self_signed: make a certificate for it.
    trusted_keys: the public keys of those whose versions are served, and no others.
    other_ports: of the gateway's own, by the variable that sets each; 0 is none.
    drain_timeout_s: how long the gateway may take to answer what it has accepted.
    """

    model_repository: Path
    host: str
    http_port: int
    grpc_port: int
    other_ports: dict[str, int]
    drain_timeout_s: float
    allow_reload_config: bool = False
    asks_for_keys: bool = False
    tls: bool = False
    tls_self_signed: bool = False
    trusted_keys: Path | None = None

    @property
    def model_server_host(self) -> str:
        """Where gRPC is listened on: the model server asks nobody for a key, so where the gateway
        does, only this machine reaches it."""
        return "127.0.0.1" if self.asks_for_keys else self.host


def check(options: Options) -> None:
    """Raises StackError for what would keep it from starting, before anything is."""
    ports = {"--http-port": options.http_port, "--grpc-port": options.grpc_port}
    others = {name: port for name, port in options.other_ports.items() if port}
    problem = port_problem(options.host, ports | others)
    if problem:
        raise StackError(problem)


class Supervisor:
    """Serve a repository over HTTP and gRPC until SIGTERM, SIGINT or SIGHUP.

    Raises StackError where no temporary file can be written.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._stop = StopSignals()
        try:
            self._work_dir = Path(tempfile.mkdtemp(prefix="sluice-"))
        except OSError as error:
            raise StackError(
                f"temporary files cannot be written ({error.strerror}): set TMPDIR to a directory "
                "where they can"
            ) from None
        self._config_file = self._work_dir / "models.config"
        self._self_signed: tuple[Path, Path] | None = None
        self._models = Models(options.model_repository, self._config_file)
        self._model_server = dialled(options.model_server_host, options.grpc_port)
        self._client = Client(f"grpc://{self._model_server}", retries=0)
        self._services: list[Service] = []

    def run(self) -> int:
        """The exit status: 0 when told to stop, 1 when it could not start or not stay up."""
        with self._stop, self._client:
            try:
                check(self._options)
                self._start()
                self._watch()
            except (StackError, GivenUp) as error:
                say(str(error))
                return 1
            finally:
                self._end()
        return 0

    def _start(self) -> None:
        try:
            self._models.rescan()
        except OSError as error:
            raise StackError(f"{error.filename} cannot be read ({error.strerror})") from None
        say("Starting the model server; TensorFlow takes some seconds")
        self._start_service(
            Service("model server", self._model_server_command(), self._model_server_answers)
        )
        self._wait_for(self._models_are_settled, LOADING_PATIENCE_S)
        if self._stop.received is not None:
            return
        if self._options.tls_self_signed:
            from service.up.self_signed import write_self_signed  # its library is for those alone

            self._self_signed = write_self_signed(self._work_dir, self._options.host)
        say("Starting the gateway")
        self._start_service(
            Service(
                "gateway",
                _python("service.cli", "gateway"),
                self._gateway_answers,
                self._gateway_environment(),
            )
        )
        if self._stop.received is None:
            options, models = self._options, self._models
            say(
                welcome(
                    options.model_repository,
                    models.served(),
                    models.missing(),
                    options.host,
                    options.http_port,
                    options.grpc_port,
                    options.asks_for_keys,
                    "https" if self._speaks_tls else "http",
                    str(self._self_signed[0]) if self._self_signed else "",
                    grpc_is_open=bool(self._tensorflow_serving),
                )
            )

    def _watch(self) -> None:
        next_look = time.monotonic()
        while not self._stop.wait(POLL_S):
            self._keep_up()
            if time.monotonic() >= next_look:
                self._models.follow(self._client)
                next_look = time.monotonic() + LOOK_S

    def _end(self) -> None:
        """The gateway first: what it has accepted still needs the model server."""
        if self._stop.received is not None:
            say(f"{self._stop.received.name}: stopping, once what was accepted is answered")
        for service in reversed(self._services):
            service.stop(self._options.drain_timeout_s + STOP_MARGIN_S)
        shutil.rmtree(self._work_dir, ignore_errors=True)

    def _start_service(self, service: Service) -> None:
        """And wait until it answers. Raises GivenUp, and StackError where it does not."""
        self._services.append(service)
        if not self._wait_for(lambda: service.is_up, START_TIMEOUT_S):
            raise StackError(
                f"The {service.name} has not answered within {START_TIMEOUT_S:g} s; the lines "
                "above may say why"
            )

    def _wait_for(self, condition: Callable[[], bool], within_s: float) -> bool:
        """Whether it came about in time; True as well where all is to stop."""
        deadline = time.monotonic() + within_s
        while not self._stop.wait(0):
            self._keep_up()
            if condition():
                return True
            if time.monotonic() > deadline:
                return False
            self._stop.wait(POLL_S)
        return True

    def _keep_up(self) -> None:
        for service in self._services:
            service.keep_up()

    def _models_are_settled(self) -> bool:
        self._models.follow(self._client)
        return self._models.settled()

    def _model_server_answers(self) -> bool:
        try:
            return self._client.ready(timeout_s=ASK_TIMEOUT_S)
        except ClientError:
            return False

    def _gateway_answers(self) -> bool:
        """Asked whether it is alive, not whether it is ready: without a model it is not. That page
        is open whatever the settings close, and neither counted nor logged. Over TLS its handshake
        tells as much, and needs no certificate that clients may have to show."""
        address = dialled(self._options.host, self._options.http_port)
        if self._speaks_tls:
            return _shakes_hands(address)
        connection = http.client.HTTPConnection(address, timeout=ASK_TIMEOUT_S)
        try:
            connection.request("GET", "/v2/health/live")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):  # it is still starting
            return False
        finally:
            connection.close()

    @property
    def _speaks_tls(self) -> bool:
        return self._options.tls or self._options.tls_self_signed

    @property
    def _tensorflow_serving(self) -> str | None:
        """Its command, where it is the model server."""
        return None if self._options.trusted_keys else shutil.which(TENSORFLOW_MODEL_SERVER)

    def _model_server_command(self) -> list[str]:
        """The same flags either way, as the embedded server is TensorFlow Serving's twin; but for
        those that only the twin has."""
        options = self._options
        flags = [
            f"--port={options.grpc_port}",
            f"--model_config_file={self._config_file}",
            "--model_config_file_poll_wait_seconds=1",
            # A label and its version come in one list, and the version takes a while to load.
            "--allow_version_labels_for_unavailable_models=true",
            # Its default of 4 threads a core turns callers away while cores are idle.
            f"--grpc_max_threads={max(64, 16 * (os.cpu_count() or 1))}",
        ]
        installed = self._tensorflow_serving
        if not installed:
            reload_config = str(options.allow_reload_config).lower()
            own = [
                f"--bind_address={options.model_server_host}",
                f"--allow_reload_config={reload_config}",
                # Of each version the graph that this CPU is quickest with. TensorFlow Serving takes
                # one kind for all, and ends where a version has none.
                "--saved_model_tags=auto",
                # Until its health says so the gateway asks it for no model.
                f"--loading_patience_seconds={LOADING_PATIENCE_S:g}",
            ]
            if options.trusted_keys:
                own.append(f"--trusted_keys={options.trusted_keys.absolute()}")
            return [*_python("service.modelserver"), *flags, *own]
        say(
            f"TensorFlow Serving has no flag for the address: its port {options.grpc_port} is open "
            "to other machines, HandleReloadConfigRequest too"
        )
        # Over a model that does not load at the start it ends; else after five minutes of trying.
        return [installed, *flags, "--max_num_load_retries=0"]

    def _gateway_environment(self) -> dict[str, str]:
        # A laptop has no use for a third port, and a second `sluice up` would not get it.
        unless_set = {
            "SLUICE_ADMIN_PORT": "0",
            "SLUICE_PUBLIC_METRICS": "on",
            "SLUICE_MODEL_REPOSITORY": str(self._options.model_repository.resolve()),
        }
        if self._self_signed:
            certificate, key = map(str, self._self_signed)
            unless_set |= {"SLUICE_TLS_CERTIFICATE_FILE": certificate, "SLUICE_TLS_KEY_FILE": key}
        return {
            "SLUICE_MODEL_SERVER": self._model_server,
            "SLUICE_MODEL_CONFIG_FILE": str(self._config_file),
            "SLUICE_HTTP_HOST": self._options.host,
            "SLUICE_HTTP_PORT": str(self._options.http_port),
            **{name: os.environ.get(name, value) for name, value in unless_set.items()},
        }


def _shakes_hands(address: str) -> bool:
    """Whether a TLS server is there, whoever it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ASK_TIMEOUT_S) as plain:
            context.wrap_socket(plain).close()
    except OSError:
        return False
    return True


def _python(module: str, *arguments: str) -> list[str]:
    """-P keeps folders of the current directory from being taken for our packages."""
    return [sys.executable, "-P", "-m", module, *arguments]

"""`sluice up`: a model server and a gateway as children, started, watched and stopped in order."""

import http.client
import shutil
import socket
import ssl
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from service.up.command_lines import (
    LOADING_PATIENCE_S,
    METRICS_PATH,
    MODELS,
    Options,
    gateway_environment,
    model_server_command,
    python,
    write_monitoring,
)
from service.up.models import ASK_TIMEOUT_S, Models
from service.up.output import say
from service.up.ports import dialled, port_problem
from service.up.services import GivenUp, Service
from service.up.signals import StopSignals
from service.up.welcome import welcome
from sluice.client import Client, ClientError

POLL_S = 0.2
LOOK_S = 1.0  # at the repository and the models, as often as TensorFlow Serving looks
START_TIMEOUT_S = 300.0
STOP_MARGIN_S = 5.0


class StackError(Exception):
    """The two cannot come up, or not stay up; the message says why and what to do."""


def check(options: Options) -> None:
    """Raises StackError for what would keep it from starting, before anything is."""
    problem = port_problem(options.host, options.ports)
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
            write_monitoring(self._work_dir)
        except OSError as error:
            raise StackError(
                f"temporary files cannot be written ({error.strerror}): set TMPDIR to a directory "
                "where they can"
            ) from None
        self._self_signed: tuple[Path, Path] | None = None
        self._models = Models(options.model_repository, self._work_dir / MODELS)
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
        options = self._options
        if options.tensorflow_serving:
            ports = [port for port in (options.grpc_port, options.metrics_port) if port]
            which = " and ".join(map(str, ports))
            open_ports = f"ports {which} are" if len(ports) > 1 else f"port {which} is"
            say(
                f"TensorFlow Serving has no flag for the address: its {open_ports} open to other "
                "machines, HandleReloadConfigRequest too"
            )
        command = model_server_command(options, self._work_dir)
        self._start_service(Service("model server", command, self._model_server_answers))
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
                python("service.cli", "gateway"),
                self._gateway_answers,
                gateway_environment(options, self._work_dir, self._model_server, self._self_signed),
            )
        )
        if self._stop.received is None:
            models = self._models
            if options.metrics_port:
                metrics = dialled(options.model_server_host, options.metrics_port)
                say(f"The model server's metrics: http://{metrics}{METRICS_PATH}")
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
                    grpc_is_open=bool(options.tensorflow_serving),
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

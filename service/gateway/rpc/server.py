"""The gRPC server of one worker: started after the fork, drained with it."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import grpc
from grpc_health.v1 import health_pb2_grpc

from service.gateway.model_server import ModelServer
from service.gateway.readiness import readiness
from service.gateway.rpc import oip, tfs
from service.gateway.rpc.edge import QUIET_S, Edge
from service.gateway.rpc.health import Health
from service.gateway.settings import Settings
from service.gateway.telemetry import Telemetry
from sluice.wire.reflection import add_reflection

SERVICES = (tfs.PREDICTION_SERVICE, tfs.MODEL_SERVICE, oip.SERVICE, "grpc.health.v1.Health")
MAX_REFUSING_S = 2.0  # for clients that call again at once, over and over
MAX_CALLS = 1000  # in flight or waiting for a thread, as gunicorn's worker_connections

log = logging.getLogger(__name__)


class RpcServer(Protocol):
    """What a worker does with its gRPC server."""

    def drain(self) -> None:
        """Take no new calls from now on; returns at once, and may be called again."""

    def finish(self, beat: Callable[[], None]) -> None:
        """After `drain`: until the calls in flight have ended or their time is up; calls `beat`
        while it waits."""

    def stop(self) -> None:
        """Cut everything off."""


class NoServer:
    """No gRPC port is set."""

    def drain(self) -> None:
        pass

    def finish(self, beat: Callable[[], None]) -> None:
        pass

    def stop(self) -> None:
        pass


class GrpcServer:
    """Listens from its making on. Raises RuntimeError for a port that cannot be had.

    Every worker binds the same port, and the kernel shares the connections out among them.
    """

    def __init__(self, settings: Settings, server: ModelServer, telemetry: Telemetry) -> None:
        self._grace_s = settings.drain_timeout_s
        self._edge = Edge(telemetry)
        self._health = Health(SERVICES, lambda: readiness(settings, server).ready)
        self._draining = threading.Thread(target=self._drain, daemon=True)
        self._server = grpc.server(
            ThreadPoolExecutor(settings.threads, "grpc"),
            options=[
                ("grpc.so_reuseport", 1),
                ("grpc.max_receive_message_length", settings.max_body_bytes),
                ("grpc.max_send_message_length", -1),
            ],
            maximum_concurrent_rpcs=MAX_CALLS,
        )
        self._add_services(settings, server)
        self._server.add_insecure_port(f"{settings.http_host}:{settings.grpc_port}")
        self._server.start()
        log.info("Answering gRPC at %s:%d", settings.http_host, settings.grpc_port)

    def drain(self) -> None:
        if self._draining.ident is None:
            self._draining.start()

    def finish(self, beat: Callable[[], None]) -> None:
        while self._draining.is_alive():
            beat()
            self._draining.join(QUIET_S)

    def stop(self) -> None:
        self._server.stop(None)

    def _drain(self) -> None:
        """Refuse calls before the connections are told to go: gRPC's own stop() answers CANCELLED,
        which nobody tries again, to the calls that cross it on their way. Streams that are merely
        open (a Watch, reflection) hold nothing up."""
        began = time.monotonic()
        self._health.end()
        self._edge.refuse()
        while not self._edge.nobody_calls() and time.monotonic() - began < MAX_REFUSING_S:
            time.sleep(QUIET_S / 4)
        stopped = self._server.stop(began + self._grace_s - time.monotonic())
        while not self._edge.is_idle() and not stopped.wait(QUIET_S / 4):
            pass
        self._server.stop(0).wait()

    def _add_services(self, settings: Settings, server: ModelServer) -> None:
        tensorflow_serving = tfs.Tfs(settings, server)
        self._server.add_generic_rpc_handlers(
            (
                self._edge.handlers(
                    tfs.PREDICTION_SERVICE, tensorflow_serving.prediction_service()
                ),
                self._edge.handlers(tfs.MODEL_SERVICE, tensorflow_serving.model_service()),
                self._edge.handlers(oip.SERVICE, oip.Oip(settings, server).methods()),
            )
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        add_reflection(self._server, SERVICES)


def start(settings: Settings, server: ModelServer, telemetry: Telemetry) -> RpcServer:
    """Raises RuntimeError where the port is taken."""
    return GrpcServer(settings, server, telemetry) if settings.grpc_port else NoServer()

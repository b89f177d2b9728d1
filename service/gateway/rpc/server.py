"""The gRPC server of one worker: started in its event loop, drained with it."""

import asyncio
import logging
import socket
import time
from typing import Any, Protocol

import grpc

from service.gateway.descriptors import room_for
from service.gateway.gateway import Gateway
from service.gateway.readiness import readiness
from service.gateway.rpc import oip, tfs
from service.gateway.rpc.arrivals import UNREAD, Arrivals
from service.gateway.rpc.edge import QUIET_S, Edge
from service.gateway.rpc.open_services import OpenServices
from service.gateway.rpc.packing import AS_THEY_CAME
from service.gateway.settings import Settings
from service.gateway.tls.server import ServerTls
from sluice.wire.contract import HEALTH_SERVICE, MODEL_SERVICE, OIP_SERVICE, PREDICTION_SERVICE
from sluice.wire.health import HealthService, add_health
from sluice.wire.lasting_server import LastingServer
from sluice.wire.reflection import add_reflection

SERVICES = (PREDICTION_SERVICE, MODEL_SERVICE, OIP_SERVICE, HEALTH_SERVICE)
MAX_REFUSING_S = 2.0  # for clients that call again at once, over and over
LOOK_EVERY_S = 2.0  # at readiness, for those who watch health

log = logging.getLogger(__name__)


class RpcServer(Protocol):
    """What a worker does with its gRPC server."""

    async def drain(self, within_s: float) -> None:
        """Take no new calls; return when those in flight have ended, or their time is up."""

    async def stop(self) -> None:
        """Cut everything off."""


class NoServer:
    """No gRPC port is set."""

    async def drain(self, within_s: float) -> None:
        del within_s

    async def stop(self) -> None:
        pass


class _Tls:
    """The certificate in force, as gRPC takes it: it asks before each handshake, in its thread."""

    def __init__(self, tls: ServerTls) -> None:
        self._tls = tls

    def credentials(self) -> grpc.ServerCredentials:
        asks_clients = bool(self._tls.current.identity.authorities)
        return grpc.dynamic_ssl_server_credentials(
            self._configuration(), self._configuration, asks_clients
        )

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        identity = self._tls.current.identity
        return grpc.ssl_server_certificate_configuration(
            [(identity.key, identity.chain)], identity.authorities or None
        )


class GrpcServer:
    """Every worker binds the same port, and the kernel shares the connections out among them.
    Raises RuntimeError for a port that cannot be had."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._arrivals = Arrivals(gateway.settings)
        self._edge = Edge(gateway, self._arrivals)
        self._tls = None if gateway.tls is None else _Tls(gateway.tls)
        self._health = HealthService(SERVICES)
        self._server = LastingServer(self._made, gateway.settings.request_timeout_s)

    def _made(self) -> grpc.aio.Server:
        settings, predictions = self._gateway.settings, self._gateway.predictions
        server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 1),
                AS_THEY_CAME,
                UNREAD,
                ("grpc.max_receive_message_length", settings.max_body_bytes),
                ("grpc.max_send_message_length", -1),
                # What comes beyond it is closed, before a handshake, which counts as well.
                ("grpc.max_allowed_incoming_connections", room_for(settings).grpc),
                ("grpc.max_connection_age_ms", int(settings.grpc_max_connection_age_s * 1000)),
                ("grpc.max_connection_age_grace_ms", int(settings.request_timeout_s * 1000)),
                ("grpc.server_handshake_timeout_ms", int(settings.head_timeout_s * 1000)),
            ]
        )
        dialect = tfs.Tfs(predictions)
        server.add_generic_rpc_handlers(
            (
                self._edge.handlers(PREDICTION_SERVICE, dialect.prediction_service()),
                self._edge.handlers(MODEL_SERVICE, dialect.model_service()),
                self._edge.handlers(OIP_SERVICE, oip.Oip(predictions).methods()),
            )
        )
        # No call outlives its connection.
        longest_s = settings.grpc_max_connection_age_s + settings.request_timeout_s
        openly: Any = OpenServices(server, self._arrivals, longest_s)
        add_health(openly, self._health)
        add_reflection(openly, SERVICES)
        self._open_port(server)
        return server

    def _open_port(self, server: grpc.aio.Server) -> None:
        address, tls = _address(self._gateway.settings), self._tls
        if tls is None:
            server.add_insecure_port(address)
        else:
            server.add_secure_port(address, tls.credentials())

    async def start(self) -> None:
        settings = self._gateway.settings
        await self._server.start()
        self._looking = asyncio.get_running_loop().create_task(self._keep_looking())
        log.info("Answering gRPC at %s", settings.address(settings.grpc_port))

    async def drain(self, within_s: float) -> None:
        """Refuse calls before the connections are told to go: gRPC's own stop() answers CANCELLED,
        which nobody tries again, to the calls that cross it on their way. Streams that are merely
        open (a Watch, reflection) hold nothing up."""
        began = time.monotonic()
        self._looking.cancel()
        await self._health.end()
        self._edge.refuse()
        while not self._edge.nobody_calls() and time.monotonic() - began < MAX_REFUSING_S:
            await asyncio.sleep(QUIET_S / 4)
        while not self._edge.is_idle() and time.monotonic() - began < within_s:
            await asyncio.sleep(QUIET_S / 4)
        await self._server.stop(0)

    async def stop(self) -> None:
        await self._server.stop(None)

    async def _keep_looking(self) -> None:
        while True:
            try:
                ready = (await readiness(self._gateway.predictions)).ready
            except Exception:  # a bug of ours: whoever watches is told, and the log has the trace
                log.exception("Looking at readiness failed")
                ready = False
            await self._health.set(serving=ready)
            await asyncio.sleep(LOOK_EVERY_S)


def _address(settings: Settings) -> str:
    """Of a name that has several HTTP listens at one, and so does gRPC: by itself it would at each,
    and take as many connections there. Raises RuntimeError."""
    if ":" in settings.http_host:
        return settings.address(settings.grpc_port)
    try:
        return f"{socket.gethostbyname(settings.http_host)}:{settings.grpc_port}"
    except OSError as error:
        raise RuntimeError(f"{settings.http_host} has no address: {error}") from error


async def start(gateway: Gateway) -> RpcServer:
    """Raises RuntimeError where the port is taken."""
    if not gateway.settings.grpc_port:
        return NoServer()
    server = GrpcServer(gateway)
    await server.start()
    return server

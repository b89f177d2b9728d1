"""gunicorn's worker: one process, one event loop, in which all of the front lives.

    start     predictions, gRPC, the admin port, then HTTP
    serve     until told to stop; twice a second a look at the connections
    drain     both ports refuse or close, what is in flight is answered, then everything ends

Signals reach the loop through its own file descriptor: a handler here sets a flag and no more.
"""

import asyncio
import contextlib
import gc
import logging
import os
import select
import time
from typing import Any

from gunicorn.workers.gasgi import ASGIWorker

from service.gateway.app import create_app, set_up_logging
from service.gateway.descriptors import room_for
from service.gateway.front.admin import AdminServer
from service.gateway.front.asgi import Front
from service.gateway.front.handshake import Handshake
from service.gateway.front.protocol import FrontProtocol
from service.gateway.front.unsent import SHARE, Unsent
from service.gateway.gateway import Gateway
from service.gateway.loops import LoopRunner
from service.gateway.memory import IdleTrim
from service.gateway.rpc.server import start as start_grpc
from service.gateway.settings import Settings

LOOK_EVERY_S = 0.5
# For one more request on a kept connection, which is answered with `Connection: close`: one that is
# closed while the next request is on its way loses that request.
LINGER_S = 1.0
GC_AFTER = 10_000  # new objects; Python's 700 are what some twenty requests in flight hold

log = logging.getLogger(__name__)


class FrontWorker(ASGIWorker):  # type: ignore[misc]
    """`connections` are the open ones of HTTP, `handshakes` those that do not speak it yet."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connections: set[FrontProtocol] = set()
        self.handshakes: set[Handshake] = set()
        self.unsent = Unsent()
        self._stopping = asyncio.Event()

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """gunicorn warns of its own `threads`, which this worker has no use for."""

    def load_wsgi(self) -> None:
        self.settings = Settings.from_environment()
        set_up_logging(self.settings)
        self.max_connections = room_for(self.settings).http
        self.gateway = Gateway.of(self.settings)
        self._looking_at_tls: asyncio.Future[None] = self.loop.create_future()
        self._looking_at_tls.set_result(None)
        app = create_app(self.settings, self.gateway, LoopRunner(self.loop))
        self.asgi = Front(self.gateway, app)

    def turns_away(self, transport: Any) -> bool:
        """Whether it has as many connections as it may: then this one more is closed."""
        is_full = len(self.connections) + len(self.handshakes) >= self.max_connections
        if is_full:
            self.gateway.telemetry.connection_closed("full")
            transport.abort()
        return is_full

    def make_room(self) -> None:
        """For answers that are still to be taken."""
        room_bytes = int(self.settings.max_bytes_in_flight * SHARE)
        self.unsent.make_room(room_bytes, time.monotonic())

    def handshake_failed(self, peer: object, error: Exception) -> None:
        self.gateway.telemetry.handshake_failed(type(error).__name__)
        log.debug("%s: no TLS handshake: %r", peer, error)

    def _protocol(self) -> asyncio.Protocol:
        """Of a new connection."""
        return Handshake(self, self._http) if self.gateway.tls else self._http()

    def _http(self) -> FrontProtocol:
        return FrontProtocol(self)

    def handle_exit_signal(self) -> None:
        super().handle_exit_signal()
        self._stopping.set()

    def handle_quit_signal(self) -> None:
        super().handle_quit_signal()
        self._stopping.set()

    async def _serve(self) -> None:
        await self._start()
        await self._until_told_to_stop()
        await self._drain()

    async def _start(self) -> None:
        gateway, settings = self.gateway, self.settings
        await gateway.predictions.open()
        self._grpc = await start_grpc(gateway)
        self._admin = AdminServer(gateway, self.loop) if settings.admin_port else None
        for listener in self.sockets:
            listener.sock.setblocking(False)
            self.servers.append(
                await self.loop.create_server(
                    self._protocol, sock=listener.sock, backlog=self.cfg.backlog
                )
            )
        gc.collect()
        gc.freeze()  # what was loaded stays: a full collection then walks requests' objects only
        gc.set_threshold(GC_AFTER)
        log.info("Answering HTTP%s", "S" if gateway.tls else "")

    async def _until_told_to_stop(self) -> None:
        idle_trim = IdleTrim()
        while self.alive and self.ppid == _parent():
            self.notify()
            self._look()
            idle_trim.beat()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), LOOK_EVERY_S)

    def _look(self) -> None:
        now = time.monotonic()
        self._look_at_clients(now)
        admission, joining = self.gateway.admission, self.gateway.predictions.joining
        connections = len(self.connections) + len(self.handshakes)
        self.gateway.telemetry.level(admission.in_flight, joining.waiting(), connections)
        self.gateway.telemetry.servers(self.gateway.predictions.model_server.servers.all())
        self.gateway.guard.look()
        self.gateway.telemetry.access(bool(self.gateway.guard.remark))
        rollouts = self.gateway.predictions.trials.rollouts
        rollouts.begin_look()
        self.gateway.telemetry.rollouts(rollouts.problem)
        self._look_at_tls()
        if self._admin is not None:
            self._admin.beat(now)

    def _look_at_clients(self, now: float) -> None:
        for connection in list(self.connections):
            connection.look(now, self.settings)
        self.make_room()

    def _look_at_tls(self) -> None:
        """In a thread, as a file system may not answer; what is in force is so until it does."""
        tls, upstream = self.gateway.tls, self.gateway.predictions.model_server.servers.tls
        problem = any(each is not None and each.problem for each in (tls, upstream))
        expires = tls.current.identity.expires if tls else 0
        self.gateway.telemetry.certificates(expires, problem)
        if tls and self._looking_at_tls.done():
            self._looking_at_tls = self.loop.run_in_executor(None, tls.look)

    async def _drain(self) -> None:
        self.alive = False  # answers say Connection: close from now on
        within_s = self.settings.drain_timeout_s
        draining = self.loop.create_task(self._grpc.drain(within_s))
        await self._close_listeners()
        linger_until = time.monotonic() + LINGER_S
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while (self.connections or self.handshakes) and not self._quick_shutdown:
                    self.notify()
                    self._look_at_clients(time.monotonic())
                    if time.monotonic() > linger_until:
                        for connection in list(self.connections):
                            if connection.is_idle:
                                connection.close_idle()
                    await asyncio.sleep(0.05)
        await self._until_drained(draining)
        self.notify()
        if self._admin is not None:
            self._admin.close()
        await self.gateway.predictions.close()
        await self.gateway.guard.close()
        self.gateway.telemetry.flush()
        await self.loop.run_in_executor(None, self.gateway.tracer.close)

    async def _until_drained(self, draining: asyncio.Task[None]) -> None:
        """Until the calls in flight have ended, unless a second signal says not to wait."""
        while not draining.done():
            if self._quick_shutdown:
                draining.cancel()
                await self._grpc.stop()
            self.notify()
            await asyncio.wait({draining}, timeout=0.05)

    async def _close_listeners(self) -> None:
        """After all that has connected is taken, which a closed socket would reset; with nothing in
        between in which somebody else could connect."""
        accepted = []
        for listener in self.sockets:
            while select.select([listener.sock], [], [], 0)[0]:
                with contextlib.suppress(BlockingIOError):  # another worker was faster
                    accepted.append(listener.sock.accept()[0])
        for server in self.servers:
            server.close()
        for each in accepted:
            each.setblocking(False)
            await self.loop.connect_accepted_socket(self._protocol, each)


def _parent() -> int:
    return os.getppid()

"""The model servers behind the gateway: which there are, which are well, and which takes a call.

gRPC's own balancing (round_robin over one channel) goes on sending to a server that hangs or is
ten times slower than its neighbour until calls run into their deadlines, and says of none how many
calls it holds. So each address has a channel of its own, and is chosen here:

    READY       connected, and SERVING by its own health service (gRPC asks; a server without one
                counts as SERVING): a server that is loading or draining gets no calls
    fewest      of those, the one with the fewest calls in flight
    ejected     one that answers nothing, or far more slowly than its neighbours, or only failures,
                gets no calls until its health service answers in good time again, which is asked
                after a while: no client's request is the probe. One that is ejected again soon (its
                health answers and its calls do not) stays out twice as long each time

A lone server is never ejected: there is no better one. Nor is one for a time in which the gateway
itself stood still.
"""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable, Iterable

from service.gateway.dialling import Dialling, host_of
from service.gateway.server import FAILED, READY, Server
from service.gateway.standstill import Standstill
from service.gateway.tls.upstream import UpstreamTls

RESOLVE_EVERY_S = 5.0  # new pods of a headless service are found within this
UNKNOWN_EVERY_S = 1.0  # while there is none: sooner than a call gives up that waits for the first
RENEWED_LOOK_S = 0.05  # at whether a new channel is connected

log = logging.getLogger(__name__)


class Servers:
    """Those that `addresses` names: HOST:PORT[,HOST:PORT...], each host with all its IP addresses.

    For one event loop, in which `open` must be called before anything else.
    """

    def __init__(self, addresses: str, dialling: Dialling | None = None) -> None:
        self.addresses, self._dialling = addresses, dialling or Dialling()
        self.standstill = Standstill()
        self._servers: dict[str, Server] = {}
        self._turn = 0
        self._change = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []
        self._resolving: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Look the addresses up, and go on doing so."""
        self.standstill.watch()
        await self._resolve()
        self._resolving = asyncio.get_running_loop().create_task(self._keep_resolving())

    async def close(self) -> None:
        self.standstill.close()
        if self._resolving is not None:
            self._resolving.cancel()
        await asyncio.gather(*(server.close() for server in self._servers.values()))
        self._servers.clear()

    @property
    def tls(self) -> UpstreamTls | None:
        return self._dialling.tls

    def on_change(self, listener: Callable[[], None]) -> None:
        """To be called whenever a server has become READY, or has ceased to be."""
        self._listeners.append(listener)

    def all(self) -> list[Server]:
        return list(self._servers.values())

    def well(self, now: float) -> list[Server]:
        """Those that take calls now: READY and not ejected; where all are ejected, all READY."""
        ready = [server for server in self._servers.values() if server.is_ready]
        if len(ready) < 2:
            return ready
        well, awake_since = [], self.standstill.ended(now)
        for server in ready:
            times_s = [each.conduct.usual_s for each in ready if each is not server]
            if server.is_well(now, min(filter(None, times_s), default=float("inf")), awake_since):
                well.append(server)
        return well or ready

    def choose(self, among: Iterable[Server] | None = None) -> Server | None:
        """The one with the fewest calls in flight, equals in turn; None where there is none."""
        servers = self.well(time.monotonic()) if among is None else list(among)
        if len(servers) < 2:
            return servers[0] if servers else None
        self._turn += 1
        start = self._turn % len(servers)
        return min(servers[start:] + servers[:start], key=lambda server: server.in_flight)

    def any(self) -> Server | None:
        """One that may not be READY: a call to it fails with the reason why."""
        return next(iter(self._servers.values()), None)

    async def until_known(self, timeout_s: float) -> None:
        """Until one is READY, or none is still trying to connect for the first time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not self._known():
                    self._change.clear()
                    await self._change.wait()

    def _known(self) -> bool:
        states = {server.state for server in self.all()}
        return READY in states or states == {FAILED}

    def _changed(self) -> None:
        self._change.set()
        for listener in self._listeners:
            listener()

    async def _keep_resolving(self) -> None:
        while True:
            await asyncio.sleep(RESOLVE_EVERY_S if self._servers else UNKNOWN_EVERY_S)
            await self._resolve()
            await self._renew()

    async def _renew(self) -> None:
        """New channels with new certificates, for servers that take them."""
        if self._dialling.tls is None:
            return
        await asyncio.to_thread(self._dialling.tls.look)
        old = [each for each in self.all() if each.identity is not self._dialling.identity]
        await asyncio.gather(*map(self._replace, old))

    async def _replace(self, old: Server) -> None:
        new = Server(old.target, old.host, self._dialling, self._changed)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RESOLVE_EVERY_S):
                while not new.is_ready:
                    await asyncio.sleep(RENEWED_LOOK_S)
        unused = old if new.is_ready and self._servers.get(old.target) is old else new
        if unused is old:
            self._servers[old.target] = new
            self._changed()
        elif new.state is FAILED:
            log.error("%s: no connection with the new certificates", old.target)
        asyncio.get_running_loop().create_task(unused.close())

    async def _resolve(self) -> None:
        found: dict[str, str] = {}  # the host by target
        complete = True
        for address in filter(None, (each.strip() for each in self.addresses.split(","))):
            try:
                found |= dict.fromkeys(await _targets(address), host_of(address))
            except OSError as error:
                log.warning("The model server %s cannot be looked up: %s", address, error)
                complete = False
        for target in found.keys() - self._servers.keys():
            self._servers[target] = Server(target, found[target], self._dialling, self._changed)
        if not complete:
            return  # what was known stays in use
        for target in self._servers.keys() - found.keys():
            gone = self._servers.pop(target)
            asyncio.get_running_loop().create_task(gone.close())


async def _targets(address: str) -> set[str]:
    """gRPC's names of the IP addresses behind HOST:PORT; `unix:PATH` is one already."""
    if address.startswith("unix:"):
        return {address}
    port = address.rpartition(":")[2]
    infos = await asyncio.get_running_loop().getaddrinfo(
        host_of(address), int(port), type=socket.SOCK_STREAM
    )
    return {
        f"ipv6:[{where[0]!s}]:{port}" if family == socket.AF_INET6 else f"ipv4:{where[0]!s}:{port}"
        for family, _, _, _, where in infos
        if family in (socket.AF_INET, socket.AF_INET6)
    }

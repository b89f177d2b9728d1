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

Envoy's outlier detection works alike. A lone server is never ejected: there is no better one.
"""

import asyncio
import contextlib
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import grpc

from service.gateway.dialling import Dialling, host_of
from service.gateway.tls.upstream import UpstreamTls
from sluice.wire.contract import HEALTH_SERVICE

RESOLVE_EVERY_S = 5.0  # new pods of a headless service are found within this
UNKNOWN_EVERY_S = 1.0  # while there is none: sooner than a call gives up that waits for the first
QUIET_S = 0.5  # a server that holds calls and answers none for so long is not well
SLOW_S, SLOW_RATIO = 0.25, 5.0  # slower than this, and than so many times its fastest neighbour
FAILURES = 3  # in a row
EJECTED_S, MOST_EJECTED_S = 1.0, 300.0  # before it is asked again; doubled each time in a row
FORGIVEN_AFTER_S = 60.0  # of good behaviour, the first time out is short again
MOST_BETWEEN_PROBES_S = 16.0  # of one that does not answer them
EJECTED = "ejected"
HEALTH_CHECK = f"/{HEALTH_SERVICE}/Check"
SMOOTHING = 0.3  # the share of the newest call in a server's mean time
CLOSE_GRACE_S = 30.0
RENEWED_LOOK_S = 0.05  # at whether a new channel is connected

READY = grpc.ChannelConnectivity.READY
FAILED = grpc.ChannelConnectivity.TRANSIENT_FAILURE

log = logging.getLogger(__name__)
UnaryCall = Callable[..., Any]


class Server:
    """One address: its channel, its state, its calls in flight and how it has done lately."""

    def __init__(
        self, target: str, host: str, dialling: Dialling, changed: Callable[[], None]
    ) -> None:
        self.target, self.host, self.identity = target, host, dialling.identity
        self.in_flight = 0
        self.events: Counter[str] = Counter()  # EJECTED, or a status that its calls failed with
        self._usual_s = 0.0
        self._quiet_since = 0.0  # the last answer, or the first call after none was in flight
        self._failures = 0
        self._probing: asyncio.Task[None] | None = None  # while it is ejected
        self._ejected_for_s = 0.0  # the last time
        self._returned_at = 0.0  # from then; 0: it never was
        self._channel = dialling.channel(target, host)
        self._methods: dict[str, UnaryCall] = {}
        self._changed = changed
        self.state = self._channel.get_state(try_to_connect=True)
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    @property
    def is_ready(self) -> bool:
        return self.state is READY

    def method(self, name: str) -> UnaryCall:
        """The call of "/SERVICE/METHOD", bytes in and bytes out."""
        found = self._methods.get(name)
        if found is None:
            unary: Any = self._channel.unary_unary  # its stubs do not know that bytes need no codec
            found = self._methods[name] = unary(name)
        return found

    def begin(self, now: float) -> None:
        if not self.in_flight:
            self._quiet_since = now
        self.in_flight += 1

    def end(self, now: float, seconds: float, failed: bool) -> None:
        """A call that has ended: with an answer of the model's, or `failed`."""
        self.in_flight -= 1
        self._quiet_since = now
        self._failures = self._failures + 1 if failed else 0
        if not failed:
            self._usual_s += SMOOTHING * (seconds - self._usual_s)

    def abandon(self) -> None:
        """A call whose caller has left says nothing about the server."""
        self.in_flight -= 1

    def is_well(self, now: float, fastest_s: float) -> bool:
        """Whether it is to get calls, given the mean time of its fastest neighbour, seconds."""
        if self._probing is not None:
            return False
        why = self._what_is_wrong(now, fastest_s)
        if why:
            self._eject(now, why)
        return not why

    @property
    def usual_s(self) -> float:
        return self._usual_s

    async def close(self) -> None:
        """When its calls have ended."""
        self._watching.cancel()
        if self._probing is not None:
            self._probing.cancel()
        await self._channel.close(CLOSE_GRACE_S if self.in_flight else None)

    def _what_is_wrong(self, now: float, fastest_s: float) -> str:
        # What is new, or back, is measured by its neighbours: all calls may take long.
        usual_s = max(self._usual_s, fastest_s)
        if self.in_flight and now - self._quiet_since > max(QUIET_S, 4 * usual_s):
            return "answers nothing"
        if self._usual_s > max(SLOW_S, SLOW_RATIO * fastest_s):
            return "is far slower than others"
        return "only fails" if self._failures >= FAILURES else ""

    def _eject(self, now: float, why: str) -> None:
        again = self._returned_at and now - self._returned_at < FORGIVEN_AFTER_S
        self._ejected_for_s = min(2 * self._ejected_for_s, MOST_EJECTED_S) if again else EJECTED_S
        self.events[EJECTED] += 1
        log.warning("The model server at %s %s: it gets no calls", self.target, why)
        self._probing = asyncio.get_running_loop().create_task(self._probe())

    async def _probe(self) -> None:
        """Until it answers in good time: whatever it answers, for not all have a health service."""
        pause_s = self._ejected_for_s
        while True:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, MOST_BETWEEN_PROBES_S)
            try:
                await self.method(HEALTH_CHECK)(b"", timeout=SLOW_S)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                    continue
            log.info("The model server at %s answers again", self.target)
            self._forget()
            self._returned_at = time.monotonic()
            self._changed()
            return

    def _forget(self) -> None:
        """What it did before says nothing about what it will do now."""
        self._probing, self._failures, self._usual_s = None, 0, 0.0
        self._quiet_since = time.monotonic()

    async def _watch(self) -> None:
        while True:
            await self._channel.wait_for_state_change(self.state)
            self.state = self._channel.get_state(try_to_connect=True)
            if self.state is READY:
                if self._probing is not None:
                    self._probing.cancel()
                self._forget()  # a process that came back is another one
            self._changed()


class Servers:
    """Those that `addresses` names: HOST:PORT[,HOST:PORT...], each host with all its IP addresses.

    For one event loop, in which `open` must be called before anything else.
    """

    def __init__(self, addresses: str, dialling: Dialling | None = None) -> None:
        self.addresses, self._dialling = addresses, dialling or Dialling()
        self._servers: dict[str, Server] = {}
        self._turn = 0
        self._change = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []
        self._resolving: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Look the addresses up, and go on doing so."""
        await self._resolve()
        self._resolving = asyncio.get_running_loop().create_task(self._keep_resolving())

    async def close(self) -> None:
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
        well = []
        for server in ready:
            others = [each.usual_s for each in ready if each is not server and each.usual_s]
            if server.is_well(now, min(others, default=float("inf"))):
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
                while not any(server.state in (READY, FAILED) for server in self.all()):
                    self._change.clear()
                    await self._change.wait()

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

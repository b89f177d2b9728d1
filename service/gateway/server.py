"""One model server: its channel, whether it is READY, and whether it has been ejected."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc

from service.gateway.conduct import Conduct
from service.gateway.dialling import Dialling
from sluice.wire.contract import HEALTH_SERVICE

EJECTED = "ejected"
HEALTH_CHECK = f"/{HEALTH_SERVICE}/Check"
PROBE_S = 0.25  # in which an ejected server has to answer
MOST_BETWEEN_PROBES_S = 16.0  # of one that does not
CLOSE_GRACE_S = 30.0

READY = grpc.ChannelConnectivity.READY
FAILED = grpc.ChannelConnectivity.TRANSIENT_FAILURE

log = logging.getLogger(__name__)
UnaryCall = Callable[..., Any]


class Server:
    """One address. `changed` is called whenever it has become READY, or has ceased to be."""

    def __init__(
        self, target: str, host: str, dialling: Dialling, changed: Callable[[], None]
    ) -> None:
        self.target, self.host, self.identity = target, host, dialling.identity
        self.conduct = Conduct()
        self.events: Counter[str] = Counter()  # EJECTED, or a status that its calls failed with
        self._probing: asyncio.Task[None] | None = None  # while it is ejected
        self._channel = dialling.channel(target, host)
        self._methods: dict[str, UnaryCall] = {}
        self._changed = changed
        self.state = self._channel.get_state(try_to_connect=True)
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    @property
    def is_ready(self) -> bool:
        return self.state is READY

    @property
    def in_flight(self) -> int:
        return self.conduct.in_flight

    def method(self, name: str) -> UnaryCall:
        """The call of "/SERVICE/METHOD", bytes in and bytes out."""
        found = self._methods.get(name)
        if found is None:
            unary: Any = self._channel.unary_unary  # its stubs do not know that bytes need no codec
            found = self._methods[name] = unary(name)
        return found

    def is_well(self, now: float, fastest_s: float, awake_since: float) -> bool:
        """Whether it is to get calls, given the mean time of its fastest neighbour, seconds, and
        since when the gateway has not stood still."""
        if self._probing is not None:
            return False
        why = self.conduct.what_is_wrong(now, fastest_s, awake_since)
        if why:
            self._eject(now, why)
        return not why

    async def close(self) -> None:
        """When its calls have ended."""
        self._watching.cancel()
        if self._probing is not None:
            self._probing.cancel()
        await self._channel.close(CLOSE_GRACE_S if self.in_flight else None)

    def _eject(self, now: float, why: str) -> None:
        self.events[EJECTED] += 1
        log.warning("The model server at %s %s: it gets no calls", self.target, why)
        probing = self._probe(self.conduct.time_out_s(now))
        self._probing = asyncio.get_running_loop().create_task(probing)

    async def _probe(self, pause_s: float) -> None:
        """Until it answers in good time: whatever it answers, for not all have a health service."""
        while True:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, MOST_BETWEEN_PROBES_S)
            try:
                await self.method(HEALTH_CHECK)(b"", timeout=PROBE_S)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                    continue
            log.info("The model server at %s answers again", self.target)
            self._probing = None
            self.conduct.come_back(time.monotonic())
            self._changed()
            return

    async def _watch(self) -> None:
        while True:
            await self._channel.wait_for_state_change(self.state)
            self.state = self._channel.get_state(try_to_connect=True)
            if self.state is READY:
                if self._probing is not None:
                    self._probing.cancel()
                    self._probing = None
                self.conduct.begin_anew(time.monotonic())  # a process that came back is another one
            self._changed()

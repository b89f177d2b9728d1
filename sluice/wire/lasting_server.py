"""A grpc.aio server that is made anew when grpcio gives it up.

grpcio 1.84 and 1.85 end the loop that takes calls at the first one whose path is no UTF-8
(`rpc_state.method().decode()` in AioServer's `_server_main_loop`), and shut the server down: one
frame of any client's, and the port is closed for good. 1.83 and before answer it UNIMPLEMENTED.
"""

import asyncio
import logging
from collections.abc import Callable

import grpc

LOOK_EVERY_S = 0.25  # at whether grpcio has given up
RETRY_S = 0.05  # until the port that the last one had is free

log = logging.getLogger(__name__)


class LastingServer:
    """`make` gives a server with its handlers and its port, not started; it raises `taken` where
    the port cannot be had, as this does the first time. Calls that are in flight when a server is
    given up have `grace_s`."""

    def __init__(
        self,
        make: Callable[[], grpc.aio.Server],
        grace_s: float,
        taken: type[Exception] = RuntimeError,
    ) -> None:
        self._make, self._grace_s, self._taken = make, grace_s, taken
        self._server = make()
        self._given_up: dict[asyncio.Task[None], grpc.aio.Server] = {}

    async def start(self) -> None:
        await self._server.start()
        self._keeping = asyncio.get_running_loop().create_task(self._keep())

    async def stop(self, grace: float | None) -> None:
        self._keeping.cancel()
        servers = [self._server, *self._given_up.values()]
        await asyncio.gather(*(server.stop(grace) for server in servers))

    async def _keep(self) -> None:
        while True:
            try:  # within a time: without, grpcio tells of it when the last call has ended
                if not await self._server.wait_for_termination(LOOK_EVERY_S):
                    return
                continue
            except Exception as error:  # whatever ended its loop, which it hands on
                log.warning("grpcio has given its server up, which is made anew: %s", error)
            ended = asyncio.get_running_loop().create_task(self._server.stop(self._grace_s))
            self._given_up[ended] = self._server
            ended.add_done_callback(self._given_up.pop)
            self._server = await self._made()
            await self._server.start()

    async def _made(self) -> grpc.aio.Server:
        while True:
            try:
                return self._make()
            except self._taken:
                await asyncio.sleep(RETRY_S)

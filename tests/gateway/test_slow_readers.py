"""Clients that read their answers slowly, and those that do not read them."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from service.gateway.front.protocol import FrontProtocol
from service.gateway.settings import Settings
from tests.gateway.test_late_looks import worker

SETTINGS = Settings(model_server="127.0.0.1:1")
ANSWER, PIECE = bytes(8 << 20), 1 << 20
PAUSE_S = 0.7 * SETTINGS.body_timeout_s  # between two looks


@contextlib.asynccontextmanager
async def answered() -> AsyncIterator[tuple[FrontProtocol, socket.socket]]:
    """A connection of the running event loop on which ANSWER was sent, and its client's end."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    of = worker()
    with theirs, contextlib.closing(of.tmp):
        _, connection = await of.loop.create_connection(of._http, sock=ours)
        connection.transport.write(ANSWER)
        yield connection, theirs
        connection.transport.abort()
        await asyncio.sleep(0)


async def read(end: socket.socket, size: int) -> None:
    """So much, or what there is before the end."""
    loop = asyncio.get_running_loop()
    while size and (data := await loop.sock_recv(end, size)):
        size -= len(data)


def test_who_goes_on_reading_is_waited_for() -> None:
    async def test() -> None:
        async with answered() as (connection, end):
            now = time.monotonic()
            for _ in range(6):
                connection.look(now, SETTINGS)
                assert not connection.transport.is_closing()
                await read(end, PIECE)
                now += PAUSE_S

    asyncio.run(test())


@pytest.mark.parametrize(
    ("taken", "settings"),
    [
        pytest.param(0, SETTINGS, id="nothing"),
        pytest.param(PIECE, replace(SETTINGS, min_body_rate=1_000_000), id="too little"),
    ],
)
def test_who_does_not_is_hung_up_on(taken, settings) -> None:
    async def test() -> None:
        async with answered() as (connection, end):
            now = time.monotonic()
            for _ in range(2):
                connection.look(now, settings)
                assert not connection.transport.is_closing()
                await read(end, taken)
                now += PAUSE_S
            connection.look(now, settings)
            assert connection.transport.is_closing()

    asyncio.run(test())


def test_nor_is_it_waited_for_once_the_connection_is_closed() -> None:
    """Which the system does not end before the last byte has gone."""

    async def test() -> None:
        async with answered() as (connection, _):
            open_ones, now = connection.worker.connections, time.monotonic()
            connection._close_transport()
            for _ in range(2):
                connection.look(now, SETTINGS)
                await asyncio.sleep(0)
                assert open_ones == {connection}
                now += PAUSE_S
            connection.look(now, SETTINGS)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not open_ones

    asyncio.run(test())

"""Clients that read their answers slowly, and those that do not read them."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace

import pytest
import uvloop

from service.gateway.front.handshake import SHUTDOWN_S
from service.gateway.front.protocol import FrontProtocol
from service.gateway.rpc.server import start as start_grpc
from service.gateway.settings import Settings
from service.gateway.tls.server import server_tls
from tests.gateway.test_late_looks import worker
from tests.system.certificates import Folder

SETTINGS = Settings(model_server="127.0.0.1:1")
ANSWER, PIECE = bytes(8 << 20), 1 << 20
PAUSE_S = 0.7 * SETTINGS.body_timeout_s  # between two looks
ROOM = 1 << 16  # what the system takes at either end

pytestmark = pytest.mark.parametrize(
    "loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
Test = Callable[[FrontProtocol, asyncio.StreamReader], Awaitable[None]]


def run(loop, test: Test, folder: Folder | None = None) -> None:
    """A test of a connection on which ANSWER was sent, and its client's end; over TLS with the
    certificates of a folder."""

    async def within() -> None:
        async with answered(folder) as (connection, reader):
            await test(connection, reader)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(asyncio.wait_for(within(), 60))


@contextlib.asynccontextmanager
async def answered(
    folder: Folder | None,
) -> AsyncIterator[tuple[FrontProtocol, asyncio.StreamReader]]:
    of, tls = worker(), None
    if folder is not None:
        served = server_tls(replace(SETTINGS, **folder.settings()))
        of.gateway = replace(of.gateway, tls=served)
        tls = {"ssl": folder.client_context(), "server_hostname": "localhost"}
    with contextlib.closing(of.tmp), socket.socket() as listener, socket.socket() as end:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
        listener.bind(("127.0.0.1", 0))
        server = await of.loop.create_server(of._protocol, sock=listener)
        end.setblocking(False)
        await of.loop.sock_connect(end, listener.getsockname())
        reader, writer = await asyncio.open_connection(sock=end, limit=ROOM, **tls or {})
        while not of.connections:
            await asyncio.sleep(0.01)
        (connection,) = of.connections
        connection.transport.write(ANSWER)
        try:
            yield connection, reader
        finally:
            connection.transport.abort()
            writer.transport.abort()
            server.close()
            await asyncio.sleep(0)


def waited_for(
    connection: FrontProtocol, looks: int, settings: Settings = SETTINGS
) -> Iterator[int]:
    """Between so many looks, each of which finds that the client is to be waited for."""
    now = time.monotonic()
    for each in range(looks):
        connection.look(now + each * PAUSE_S, settings)
        assert not connection.transport.is_closing()
        yield each


def hung_up_on(connection: FrontProtocol, settings: Settings = SETTINGS) -> bool:
    """Whether it is at the look after two."""
    connection.look(time.monotonic() + 2 * PAUSE_S, settings)
    return connection.transport.is_closing()


def test_who_goes_on_reading_is_waited_for(loop) -> None:
    async def test(connection, reader) -> None:
        for _ in waited_for(connection, 6):
            await reader.readexactly(PIECE)

    run(loop, test)


@pytest.mark.parametrize("closes", [False, True], ids=["kept", "closed"])
def test_over_tls_it_is_too(loop, closes, tmp_path) -> None:
    """TLS hands all that it is given to the transport below at once, and once it is closed gives
    that a second."""

    async def test(connection, reader) -> None:
        if closes:
            connection._close_transport()
        for each in waited_for(connection, 6):
            await asyncio.sleep(0 if each else 1.5 * SHUTDOWN_S)
            assert not connection.transport.is_closing()
            await reader.readexactly(PIECE)
        await reader.readexactly(len(ANSWER) - 6 * PIECE)
        if closes:
            assert await reader.read() == b""

    run(loop, test, Folder(tmp_path))


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_so_it_is_for_an_answer_behind_another(loop, tls, tmp_path) -> None:
    async def test(connection, reader) -> None:
        for each in waited_for(connection, 6):
            if each == 1:
                connection.transport.write(ANSWER)
            await reader.readexactly(PIECE)

    run(loop, test, Folder(tmp_path) if tls else None)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_answers_behind_another_are_no_sign_of_a_client_that_reads(loop, tls, tmp_path) -> None:
    async def test(connection, _) -> None:
        for _ in waited_for(connection, 2):
            connection.transport.write(ANSWER)
        assert hung_up_on(connection)

    run(loop, test, Folder(tmp_path) if tls else None)


@pytest.mark.parametrize(
    ("taken", "settings"),
    [
        pytest.param(0, SETTINGS, id="nothing"),
        pytest.param(PIECE, replace(SETTINGS, min_body_rate=1_000_000), id="too little"),
    ],
)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_who_does_not_is_hung_up_on(loop, tls, taken, settings, tmp_path) -> None:
    async def test(connection, reader) -> None:
        for _ in waited_for(connection, 2, settings):
            await reader.readexactly(taken)
        assert hung_up_on(connection, settings)

    run(loop, test, Folder(tmp_path) if tls else None)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_nor_is_it_waited_for_once_the_connection_is_closed(loop, tls, tmp_path) -> None:
    """Which the system does not end before the last byte has gone."""

    async def test(connection, _) -> None:
        open_ones, now = connection.worker.connections, time.monotonic()
        connection._close_transport()
        for _ in range(2):
            connection.look(now, SETTINGS)
            await asyncio.sleep(0)
            assert open_ones == {connection}
            now += PAUSE_S
        while open_ones:
            connection.look(now, SETTINGS)
            await asyncio.sleep(0)
            now += PAUSE_S

    run(loop, test, Folder(tmp_path) if tls else None)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_a_stop_waits_no_longer_for_it(loop, tls, tmp_path) -> None:
    async def test(connection, _) -> None:
        front = connection.worker
        front.settings = replace(SETTINGS, body_timeout_s=0.1, drain_timeout_s=3600.0)
        front._grpc, front._admin = await start_grpc(front.gateway), None
        await front._drain()
        assert not front.connections

    run(loop, test, Folder(tmp_path) if tls else None)

"""Who is hung up on: where the event loop itself has stood still, what came meanwhile is read
before its client is called late."""

import asyncio
import contextlib
import os
import socket
import time

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger

from service.gateway.app import create_app
from service.gateway.front.asgi import Front
from service.gateway.front.handshake import Handshake
from service.gateway.front.worker import FrontWorker
from service.gateway.gateway import Gateway
from service.gateway.loops import LoopRunner
from service.gateway.settings import Settings

SETTINGS = Settings(model_server="127.0.0.1:1", min_body_rate=10**9)
GET = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
HOUR_S = 3600.0  # later than each of the times that a client has


def worker() -> FrontWorker:
    """Of the running event loop, without a port."""
    config, gateway = Config(), Gateway.of(SETTINGS)
    config.set("asgi_disconnect_grace_period", 0)  # as in gunicorn.conf.py
    made = FrontWorker(1, os.getppid(), [], None, config.timeout, config, Logger(config))
    made.loop, made.settings, made.gateway = asyncio.get_running_loop(), SETTINGS, gateway
    made.max_connections = 10
    made.asgi = Front(gateway, create_app(SETTINGS, gateway, LoopRunner(made.loop)))
    return made


async def answers_to(came: list[bytes], unread: bytes) -> list[int]:
    """The statuses after the messages `came`, each of which is read, and what has come and is not,
    when the connection is looked at."""
    ours, theirs = socket.socketpair()
    of = worker()
    with theirs, contextlib.closing(of.tmp):
        _, connection = await of.loop.create_connection(of._http, sock=ours)
        reader, writer = await asyncio.open_connection(sock=theirs)
        statuses = []
        for message in came:
            theirs.send(message)
            async with asyncio.timeout(60):
                while connection.has_unread():
                    await asyncio.sleep(0)
                if message == GET:
                    statuses.append(await status_of(reader))
        theirs.send(unread)
        connection.look(time.monotonic() + HOUR_S, SETTINGS)
        async with asyncio.timeout(60):
            statuses.append(await status_of(reader))
        writer.close()
        return statuses


async def status_of(reader: asyncio.StreamReader) -> int:
    """Of the next answer, which is read to its end; 0 where the connection is closed."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
    except asyncio.IncompleteReadError:
        return 0
    length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    await reader.readexactly(length)
    return int(head.split()[1])


@pytest.mark.parametrize(
    ("came", "unread", "statuses"),
    [
        pytest.param([], GET, [200], id="the first request"),
        pytest.param([GET[:9]], GET[9:], [200], id="the rest of a head"),
        pytest.param([GET], GET, [200, 200], id="one more on a kept connection"),
        pytest.param([POST[:-1]], POST[-1:], [503], id="the rest of a body"),  # nobody serves
        pytest.param([GET[:9]], b"", [408], id="no more of a head"),
        pytest.param([POST[:-1]], b"", [408], id="no more of a body"),
    ],
)
def test_what_has_come_is_read_before_its_client_is_late(came, unread, statuses) -> None:
    assert asyncio.run(answers_to(came, unread)) == statuses


def test_and_so_is_what_is_said_before_a_handshake() -> None:
    async def status() -> int:
        ours, theirs = socket.socketpair()
        of = worker()
        with theirs, contextlib.closing(of.tmp):
            _, shaking = await of.loop.create_connection(lambda: Handshake(of, of._http), sock=ours)
            reader, writer = await asyncio.open_connection(sock=theirs)
            theirs.send(GET)
            shaking._look()
            async with asyncio.timeout(60):
                found = await status_of(reader)
            writer.close()
            return found

    assert asyncio.run(status()) == 400  # it is no TLS


def test_a_worker_that_is_full_hangs_up_before_a_handshake() -> None:
    async def said() -> list[str]:
        errors = []
        ours, theirs = socket.socketpair()
        of = worker()
        of.max_connections = 0
        theirs.setblocking(False)
        of.loop.set_exception_handler(lambda _, context: errors.append(context["message"]))
        with theirs, contextlib.closing(of.tmp):
            await of.loop.create_connection(lambda: Handshake(of, of._http), sock=ours)
            async with asyncio.timeout(60):
                assert not await of.loop.sock_recv(theirs, 1)
            await asyncio.sleep(0)
        return errors

    assert asyncio.run(said()) == []

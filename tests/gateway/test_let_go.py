"""A closed connection is gone, with its TLS and all that it held: Python's collector, which would
find what leads round in a ring, looks seldom under load."""

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace

import pytest
import uvloop

from service.gateway.settings import Settings
from service.gateway.tls.server import server_tls
from tests.gateway.test_late_looks import GET, POST, status_of, worker
from tests.system.certificates import Folder

SETTINGS = Settings(model_server="127.0.0.1:1")
LARGE = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n" + b" " * (
    3 << 20
)
# What a client says before it goes, and how many answers it waits for.
SAID = {
    "nothing": (b"", 0),
    "a request": (GET, 1),
    "two, one of them for a page": (GET + b"GET /no-page HTTP/1.1\r\nHost: x\r\n\r\n", 2),
    "a last request": (GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), 1),
    "half a head": (GET[:9], 0),
    "half a body": (POST[:-1], 0),
    "half a large body": (LARGE, 0),
    "a large body": (LARGE.replace(b"9000000", b"%d" % (3 << 20)), 1),
    "what is no HTTP": (b"\0\r\n\r\n", 1),
}


@pytest.fixture
def collector_off() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("collector_off")
@pytest.mark.parametrize("way", ["plain", "TLS"])
@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize(
    "loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
def test_nothing_of_a_closed_connection_stays(loop, said, way, tmp_path):
    folder = Folder(tmp_path) if way == "TLS" else None
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(asyncio.wait_for(_says_and_goes(*SAID[said], folder), 60))


async def _says_and_goes(message: bytes, answers: int, folder: Folder | None) -> None:
    of, tls = worker(), {}
    if folder is not None:
        served = server_tls(replace(SETTINGS, **folder.settings()))
        of.gateway = replace(of.gateway, tls=served)
        tls = {"ssl": folder.client_context(), "server_hostname": "localhost"}
    with contextlib.closing(of.tmp):
        server = await of.loop.create_server(of._protocol, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), **tls)
        while not of.connections:
            await asyncio.sleep(0.01)
        held = _held(of)
        writer.write(message)
        with contextlib.suppress(ConnectionError):  # what is no HTTP may be hung up on
            await writer.drain()
        for _ in range(answers):
            assert await status_of(reader)
        while message and not answers and next(iter(of.connections)).is_idle:
            await asyncio.sleep(0.01)
        writer.transport.abort()
        while of.connections or any(each() for each in held):
            await asyncio.sleep(0.01)
        server.close()


def _held(of) -> list[weakref.ref]:
    """The connection, and its TLS."""
    (connection,) = of.connections
    secured = connection.transport.get_extra_info("ssl_object")
    return [weakref.ref(each) for each in (connection, secured) if each is not None]

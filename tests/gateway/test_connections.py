"""More connections than a worker may have: those that are there go on, and the other port does."""

import asyncio
import contextlib
import resource

import grpc
import pytest
import requests

from service.gateway import descriptors
from service.gateway.checks import check_settings
from service.gateway.descriptors import MOST_FILES, SPARE_FILES, room_for
from service.gateway.settings import Settings
from service.gateway.variables import InvalidSetting
from sluice.wire.contract import OIP_SERVICE
from tests.gateway.hostile import Connection, Workers
from tests.gateway.test_hostile_grpc import PREFACE, SETTINGS, frame

MOST = 8
LIVE = f"/{OIP_SERVICE}/ServerLive"
# Each channel a connection of its own, which tries again soon.
ALONE = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 500)]


@pytest.mark.parametrize("says", [b"", PREFACE + frame(SETTINGS, 0, 0)], ids=["nothing", "hello"])
def test_grpc_takes_so_many_and_closes_what_comes_beyond(launch_grpc_gateway, slow, says):
    process, address = launch_grpc_gateway(slow[1], grpc_max_connections=MOST, head_timeout_s=3600)
    workers, port = Workers(process), int(address.rpartition(":")[2])

    async def attack():
        loop = asyncio.get_running_loop()

        async def connect():
            one = (await loop.create_connection(Connection, "127.0.0.1", port))[1]
            one.write(says)
            return one

        async with grpc.aio.insecure_channel(address, ALONE) as first, asyncio.timeout(120):
            await first.unary_unary(LIVE)(b"")
            idle = [await connect() for _ in range(3 * MOST)]
            while sum(each.is_open for each in idle) >= MOST:
                await asyncio.sleep(0.01)
            await first.unary_unary(LIVE)(b"")
            async with grpc.aio.insecure_channel(address, ALONE) as late:
                with pytest.raises(grpc.RpcError) as caught:
                    await late.unary_unary(LIVE)(b"")
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
                live = f"{process.url}/v2/health/live"
                assert (await asyncio.to_thread(requests.get, live, timeout=60)).ok
                assert sum(each.is_open for each in idle) == MOST - 1
                for each in idle:
                    each.abort()
                await late.unary_unary(LIVE)(b"", wait_for_ready=True)

    asyncio.run(attack())
    workers.check(of="service")


def test_a_name_with_two_addresses_has_room_for_as_many(launch_grpc_gateway, slow):
    """gRPC takes localhost for 127.0.0.1 and ::1."""
    _, address = launch_grpc_gateway(
        slow[1], http_host="localhost", grpc_max_connections=MOST, head_timeout_s=3600
    )
    port = int(address.rpartition(":")[2])

    async def attack():
        loop, clients = asyncio.get_running_loop(), []
        for host in ["127.0.0.1", "::1"] * 2 * MOST:
            with contextlib.suppress(OSError):  # nobody listens there
                clients.append((await loop.create_connection(Connection, host, port))[1])
        async with asyncio.timeout(60):
            while sum(each.is_open for each in clients) > MOST:
                await asyncio.sleep(0.01)
        for each in clients:
            each.abort()

    asyncio.run(attack())


@pytest.mark.parametrize(
    ("hard", "settings", "room"),
    [
        pytest.param(464, {"grpc_port": 1}, (300, 100), id="few descriptors"),
        pytest.param(464, {}, (400, 0), id="no gRPC"),
        pytest.param(464, {"grpc_port": 1, "grpc_max_connections": 7}, (393, 7), id="as is set"),
        pytest.param(
            resource.RLIM_INFINITY,
            {"grpc_port": 1},
            (MOST_FILES - SPARE_FILES - 4096, 4096),
            id="no bound",
        ),
    ],
)
def test_descriptors_are_shared_out(monkeypatch, hard, settings, room):
    """So that what one port's clients hold leaves the other port some."""
    asked = []
    monkeypatch.setattr(descriptors.resource, "getrlimit", lambda _: (256, hard))
    monkeypatch.setattr(descriptors.resource, "setrlimit", lambda *limit: asked.append(limit))
    assert room_for(Settings(**settings)) == room
    assert asked == [(resource.RLIMIT_NOFILE, (sum(room) + SPARE_FILES, hard))]


@pytest.mark.parametrize(
    ("hard", "settings"),
    [
        pytest.param(SPARE_FILES, {}, id="none is left"),
        pytest.param(SPARE_FILES + 3, {"grpc_port": 1}, id="none of gRPC's"),
    ],
)
def test_descriptors_that_leave_a_port_none_are_told(monkeypatch, hard, settings):
    """Such a gateway would say that it answers, and close every connection."""
    given = Settings(http_host="127.0.0.1", **settings)
    check_settings(given)
    monkeypatch.setattr(descriptors.resource, "getrlimit", lambda _: (hard, hard))
    with pytest.raises(InvalidSetting, match=f"may have {hard} descriptors"):
        check_settings(given)

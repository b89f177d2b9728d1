"""Limits that several gateways share, in a real Redis: one limit, and what becomes of it when Redis
is away."""

import asyncio
import shutil
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import psutil
import pytest
import requests
from redis import Redis

from service.gateway.access import book as book_module
from service.gateway.access import limits as limits_module
from service.gateway.access.book import Book
from service.gateway.access.guard import guard_of
from service.gateway.access.keys import digest_of, new_key
from service.gateway.access.limits import BYTES, REQUESTS, Outcome, Quota, Rate, Spending
from service.gateway.access.redis_store import AGAIN_S, AWAY_AFTER, RedisStore
from service.gateway.errors import Busy
from service.gateway.settings import Settings
from service.gateway.standstill import LATE_S
from service.gateway.variables import InvalidSetting
from tests.processes import free_port

PATIENCE_S = 10.0  # late answers are taken, as the tests may have to wait for a processor
LONG_S = 5.0  # a machine that stands still does so for less
KEY = new_key("shared")


class RedisProcess:
    """A real redis-server on a port of its own."""

    def __init__(self) -> None:
        self.port = free_port()
        self.address = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            ["redis-server", f"--port {self.port}", "--bind 127.0.0.1", "--save", ""],
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def redis():
    assert shutil.which("redis-server"), "apt-get install redis-server"
    server = RedisProcess()
    yield server
    server.stop()


@pytest.mark.root
def test_it_counts_as_the_book_does(redis, monkeypatch):
    """The same spendings, one after another, come to the same in both, at the same time: Redis
    says what it is."""
    clock = SimpleNamespace(monotonic=lambda: theirs.now, time=lambda: theirs.now)
    monkeypatch.setattr(book_module, "time", clock)
    monkeypatch.setattr(limits_module, "time", clock)
    theirs = Outcome(None, 0.0, [], 0.0)
    rate, large, day = Rate(REQUESTS, 0.01, 3), Rate(BYTES, 0.01, 10), Quota(4)

    async def run():
        nonlocal theirs
        store, book = RedisStore(redis.address, None, PATIENCE_S), Book()
        for cost in (4, 4, 50, 1, 1, 1):
            spendings = [Spending("a", rate, 1), Spending("a", large, cost), Spending("a", day, 1)]
            theirs = await store.spend(spendings)
            ours = await book.spend(spendings)
            assert theirs.refused == ours.refused
            assert theirs.wait_s == pytest.approx(ours.wait_s, abs=1e-5)
            for each, here, there in zip(spendings, ours.used, theirs.used, strict=True):
                assert each.limit.left(there, theirs.now) == each.limit.left(here, ours.now)
        await store.close()

    asyncio.run(run())


@pytest.mark.root
def test_without_it_the_book_counts_or_nobody_is_answered_until_it_is_back(redis):
    spendings = [Spending("a", Rate(REQUESTS, 0.001, 2), 1)]

    async def run():
        is_open, is_shut = (
            RedisStore(redis.address, Book(), PATIENCE_S),
            RedisStore(redis.address, None, PATIENCE_S),
        )
        for store in (is_open, is_shut):
            assert (await store.spend([Spending("b", Quota(5), 1)])).refused is None
        redis.stop()
        assert [(await is_open.spend(spendings)).refused is None for _ in range(3)] == [
            True,
            True,
            False,
        ]
        for _ in range(3):
            with pytest.raises(Busy, match="cannot be counted"):
                await is_shut.spend(spendings)
        assert is_open.problem and is_shut.problem
        redis.start()
        async with asyncio.timeout(30):
            while is_open.problem or is_shut.problem:
                await asyncio.sleep(0.05)
        assert (await is_shut.spend(spendings)).refused is None
        await is_open.close()
        await is_shut.close()

    asyncio.run(run())


@pytest.mark.root
def test_one_that_has_become_a_replica_is_away_until_it_takes_what_is_spent(redis):
    """It answers. Its name leads to who took its place, so it is tried on new connections."""
    spendings = [Spending("a", Rate(REQUESTS, 1000, 1000), 1)]

    async def run():
        store = RedisStore(redis.address, Book(), PATIENCE_S)
        await store.spend(spendings)
        with Redis.from_url(redis.address) as admin:
            before = clients(admin)
            admin.replicaof("127.0.0.1", free_port())
            assert (await store.spend(spendings)).refused is None
            async with asyncio.timeout(30):
                while not (now := clients(admin)) or now & before:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(3 * AGAIN_S)
            assert store.problem
            admin.replicaof("NO", "ONE")
            async with asyncio.timeout(30):
                while store.problem:
                    await asyncio.sleep(0.05)
        await store.close()

    asyncio.run(run())


def clients(admin):
    """Who is connected, beside `admin`."""
    return {each["id"] for each in admin.client_list()} - {str(admin.client_id())}


def test_one_that_takes_connections_and_says_nothing_holds_nobody_up():
    """Those who meet it first wait, not for long; the others are not asked to."""
    with socket.create_server(("127.0.0.1", 0)) as silent:

        async def run():
            store = RedisStore(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", Book(), 0.04)
            spendings = [Spending("a", Rate(REQUESTS, 1000, 1000), 1)]
            waited = []
            real = asyncio.timeout
            try:
                asyncio.timeout = lambda delay: waited.append(delay) or real(delay)
                for _ in range(100):
                    assert (await store.spend(spendings)).refused is None
            finally:
                asyncio.timeout = real
            assert waited == [0.04] * AWAY_AFTER
            await store.close()

        asyncio.run(run())


def test_answers_that_are_late_at_the_same_moment_are_one_that_is():
    with socket.create_server(("127.0.0.1", 0)) as silent:

        async def run():
            store = RedisStore(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", Book(), 0.04)
            spendings = [Spending("a", Rate(REQUESTS, 1000, 1000), 1)]
            for _ in range(AWAY_AFTER - 1):
                await asyncio.gather(*[store.spend(spendings) for _ in range(2 * AWAY_AFTER)])
                assert not store.problem
            while not store.problem:
                await store.spend(spendings)
            await store.close()

        asyncio.run(asyncio.wait_for(run(), 60))


def test_a_standstill_of_the_gateway_makes_it_not_away():
    """What it answered meanwhile has not been read when the requests' patience is over."""
    with socket.create_server(("127.0.0.1", 0)) as silent:

        async def run():
            store = RedisStore(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", Book(), 0.04)
            spendings = [Spending("a", Rate(REQUESTS, 1000, 1000), 1)]
            asked = [asyncio.create_task(store.spend(spendings)) for _ in range(2 * AWAY_AFTER)]
            await asyncio.sleep(0)
            time.sleep(0.04 + 2 * LATE_S)
            await asyncio.gather(*asked)
            assert not store.problem
            while not store.problem:
                await store.spend(spendings)
            await store.close()

        asyncio.run(asyncio.wait_for(run(), 60))


ISSUER = """
[issuers.login]
issuer = "https://login.example"
audience = "sluice"
jwks = "http://127.0.0.1:PORT/jwks.json"
algorithms = ["RS256"]
models = ["*"]
"""


@pytest.mark.parametrize(
    ("text", "store", "remark", "line"),
    [
        ("", "redis://127.0.0.1:PORT/0", "Redis is away", "Redis is away (ConnectionError)"),
        (ISSUER, "", "the keys of an issuer", "the keys of http://127.0.0.1:PORT/jwks.json cannot"),
    ],
    ids=["Redis", "JWKS"],
)
def test_what_is_away_at_the_start_is_told_before_anybody_asks(
    tmp_path, caplog, text, store, remark, line
):
    """By what /readyz mentions and `sluice_access_problem` says: the guard's remark."""
    port, path = str(free_port()), tmp_path / "access.toml"
    path.write_text(text.replace("PORT", port))

    async def run():
        settings = Settings(access_file=str(path), limits_store=store.replace("PORT", port))
        guard = guard_of(settings)
        guard.look()
        async with asyncio.timeout(30):
            while not guard.remark:
                await asyncio.sleep(0.01)
        assert remark in guard.remark
        await guard.close()

    asyncio.run(run())
    assert line.replace("PORT", port) in caplog.text


def test_an_address_that_is_none_is_not_repeated(tmp_path):
    path = tmp_path / "access.toml"
    path.write_text("")
    given = Settings(access_file=str(path), limits_store="rediz://:secret-word@host")
    with pytest.raises(InvalidSetting, match=r"^SLUICE_LIMITS_STORE: ") as refusal:
        guard_of(given)
    assert "secret-word" not in str(refusal.value)


@pytest.fixture
def two_gateways(launch_gateway, slow, redis, tmp_path):
    """`two_gateways(limits, **settings)`: before one model server, with one Redis."""
    service, model_server = slow
    service.go.set()

    def launch(limits, **settings):
        path = tmp_path / "access.toml"
        path.write_text(f'[keys.shared]\nsha256 = "{digest_of(KEY)}"\nmodels = ["*"]\n{limits}')
        settings |= {"access_file": path, "limits_store": redis.address}
        settings["limits_timeout_s"] = PATIENCE_S
        return [launch_gateway(model_server, **settings) for _ in range(2)]

    return launch


def statuses(gateways, seconds):
    """Of requests to both, as fast as they answer."""
    until = time.monotonic() + seconds

    def ask(gateway):
        session, found = requests.Session(), []
        while not found or time.monotonic() < until:
            reply = session.post(
                f"{gateway.url}/v1/models/m:predict",
                data='{"instances": [1.0]}',
                headers={"X-API-Key": KEY},
                timeout=30,
            )
            found.append(reply.status_code)
        return found

    with ThreadPoolExecutor(len(gateways)) as threads:
        return [status for found in threads.map(ask, gateways) for status in found]


def asked_s(gateway, count):
    """(status, seconds) of so many requests, one after another."""
    session, found = requests.Session(), []
    for _ in range(count):
        began = time.monotonic()
        reply = session.post(
            f"{gateway.url}/v1/models/m:predict",
            data='{"instances": [1.0]}',
            headers={"X-API-Key": KEY},
            timeout=60,
        )
        found.append((reply.status_code, time.monotonic() - began))
    return found


@pytest.mark.root
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("away, status", [("open", 200), ("shut", 503)])
def test_a_redis_that_goes_away_is_waited_for_by_as_few_as_it_takes_to_know(
    launch_gateway, slow, redis, tmp_path, away, status, how
):
    """And for as long as is set, which is here longer than anything else takes."""
    assert Settings().limits_timeout_s <= 0.05
    service, model_server = slow
    service.go.set()
    path = tmp_path / "access.toml"
    path.write_text(
        f'[keys.shared]\nsha256 = "{digest_of(KEY)}"\nmodels = ["*"]\nrequests_per_s = 100000'
    )
    gateway = launch_gateway(
        model_server,
        access_file=path,
        limits_store=redis.address,
        limits_away=away,
        limits_timeout_s=LONG_S,
    )
    assert {each for each, _ in asked_s(gateway, 20)} == {200}
    redis.process.send_signal(how)
    if how is signal.SIGSTOP:
        while psutil.Process(redis.process.pid).status() != psutil.STATUS_STOPPED:
            time.sleep(0.01)
    else:
        redis.process.wait()
    found = asked_s(gateway, 20)
    redis.process.send_signal(signal.SIGCONT)
    assert {each for each, _ in found} == {status}
    waited = AWAY_AFTER if how is signal.SIGSTOP else 0
    assert [seconds >= LONG_S for _, seconds in found] == [number < waited for number in range(20)]
    gateway.wait_for("Redis is away")


def until_all_are(status, gateways):
    deadline = time.monotonic() + 30
    while set(statuses(gateways, 0.2)) != {status}:
        assert time.monotonic() < deadline


@pytest.mark.root
def test_two_gateways_keep_one_limit(two_gateways):
    gateways = two_gateways("requests_per_s = 5\nburst = 5", limits_away="shut")
    statuses(gateways, 0.2)
    began = time.monotonic()
    found = statuses(gateways, 8)
    allowed = 5 * (time.monotonic() - began)
    assert set(found) == {200, 429}
    assert len(found) > 5 * allowed
    assert 0.95 * allowed <= found.count(200) <= 1.05 * (allowed + 5)


@pytest.mark.root
@pytest.mark.parametrize("away, status", [("open", 200), ("shut", 503)])
def test_a_redis_that_dies_under_load_costs_what_the_setting_says(
    two_gateways, redis, away, status
):
    gateways = two_gateways("requests_per_s = 100000", limits_away=away)
    until_all_are(200, gateways)
    redis.stop()
    assert set(statuses(gateways, 1)) == {status}
    for gateway in gateways:
        gateway.wait_for("Redis is away")
    redis.start()
    for gateway in gateways:
        gateway.wait_for("Redis is back")
    until_all_are(200, gateways)

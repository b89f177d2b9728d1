"""Which model server gets a call: real servers and real connections on this machine."""

import asyncio
import contextlib
import itertools
import math
import socket
import subprocess
import sys
import time

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from service.gateway import conduct
from service.gateway import model_server as model_server_module
from service.gateway import server as server_module
from service.gateway import servers as servers_module
from service.gateway import standstill as standstill_module
from service.gateway.caller import Caller
from service.gateway.errors import (
    DeadlineExceeded,
    GatewayError,
    ModelNotFound,
    ModelServerFailed,
    ModelServerOverloaded,
    ModelServerUnavailable,
)
from service.gateway.model_server import ATTEMPTS, GET_STATUS, ModelServer
from service.gateway.server import EJECTED
from service.gateway.servers import Servers
from service.gateway.standstill import LATE_S, LOOK_EVERY_S
from sluice.wire.contract import State
from sluice.wire.model_ref import ModelRef
from sluice.wire.protos.serving_pb2 import GetModelStatusResponse, ModelVersionStatus

METHOD = "/toy.Service/Call"
MODEL = ModelRef("m")
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Clock:
    """What servers are judged by: it stands still, whatever the machine does, until it is moved."""

    now = 1000.0

    def monotonic(self):
        return self.now


CLOCK = Clock()


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """CLOCK, in whose steps the gateway does not stand still, but where a test says so."""
    for module in (model_server_module, server_module, servers_module, standstill_module):
        monkeypatch.setattr(module, "time", CLOCK)
    monkeypatch.setattr(standstill_module, "LATE_S", math.inf)


class Toy(grpc.GenericRpcHandler):
    """A server of one method, which does what the test says."""

    def __init__(self, with_health=True):
        self.delay_s, self.refusal, self.calls, self.cancelled = 0.0, None, 0, 0
        self.takes_s = 0.0  # by CLOCK
        self.metadata = {}
        self.health = health.aio.HealthServicer() if with_health else None

    def service(self, details):
        if details.method == METHOD:
            return grpc.unary_unary_rpc_method_handler(self._call)
        return None

    async def _call(self, request, context):
        self.calls += 1
        self.metadata = dict(context.invocation_metadata())
        if self.refusal is not None:
            await context.abort(*self.refusal)
        CLOCK.now += self.takes_s
        try:
            await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return request

    async def start(self, port=0):
        """The port that it listens on."""
        self.server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self.server.add_generic_rpc_handlers((self,))
        if self.health is not None:
            health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
            await self.health.set("", SERVING)
        self.port = self.server.add_insecure_port(f"127.0.0.1:{port}")
        await self.server.start()
        return self.port


@contextlib.asynccontextmanager
async def toys(*given, addresses=None):
    """(a ModelServer before them, the toys): connected, and stopped at the end."""
    made = [Toy() if each is None else each for each in given]
    for toy in made:
        await toy.start()
    named = addresses or ",".join(f"127.0.0.1:{toy.port}" for toy in made)
    client = ModelServer(named)
    await client.open()
    try:
        await until(lambda: len(ready(client)) == len(made))
        yield client, *made
    finally:
        await client.close()
        for toy in made:
            await toy.server.stop(None)


def ready(client):
    return [server for server in client.servers.all() if server.is_ready]


async def until(condition, timeout_s=30):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.01)


async def call(client, seconds=10.0, data=b"x"):
    return await client.call(METHOD, data, MODEL, Caller.within(seconds))


def run(test):
    def wrapped():
        asyncio.run(asyncio.wait_for(test(), 120))

    wrapped.__name__, wrapped.__doc__ = test.__name__, test.__doc__
    return wrapped


@run
async def test_calls_are_shared_out():
    async with toys(None, None) as (client, one, two):
        for _ in range(20):
            assert await call(client) == b"x"
        assert one.calls == two.calls == 10


@run
async def test_the_one_with_the_fewest_calls_in_flight_gets_the_next():
    async with toys(None, None) as (client, one, two):
        one.delay_s = two.delay_s = 0.3
        held = [asyncio.create_task(call(client)) for _ in range(6)]
        await until(lambda: one.calls + two.calls == 6)
        assert one.calls == two.calls == 3
        await asyncio.gather(*held)


@run
async def test_one_that_does_not_serve_gets_none_and_all_once_it_does():
    async with toys(None, None) as (client, one, two):
        await one.health.set("", NOT_SERVING)
        await until(lambda: len(ready(client)) == 1)
        before = one.calls
        for _ in range(10):
            await call(client)
        assert (one.calls - before, two.calls) == (0, 10)
        await one.health.set("", SERVING)
        await until(lambda: len(ready(client)) == 2)
        for _ in range(10):
            await call(client)
        assert one.calls - before == 5


@run
async def test_a_server_without_health_checks_counts_as_serving():
    async with toys(Toy(with_health=False)) as (client, one):
        assert await call(client) == b"x"
        assert one.calls == 1


@run
async def test_one_that_goes_is_left_and_comes_back():
    async with toys(None, None) as (client, one, two):
        changes = []
        client.servers.on_change(lambda: changes.append(len(ready(client))))
        port = one.port
        await one.server.stop(None)
        await until(lambda: len(ready(client)) == 1)
        for _ in range(10):
            await call(client)
        assert two.calls == 10
        again = Toy()
        await again.start(port)
        await until(lambda: len(ready(client)) == 2)
        assert changes, "those who wait are told"
        for _ in range(10):
            await call(client)
        assert again.calls == 5
        await again.server.stop(None)


@pytest.fixture
def quick(monkeypatch):
    """Ejections that end soon."""
    monkeypatch.setattr(conduct, "EJECTED_S", 0.3)
    monkeypatch.setattr(conduct, "MOST_EJECTED_S", 0.6)
    monkeypatch.setattr(server_module, "MOST_BETWEEN_PROBES_S", 0.6)


def ejections(client, toy):
    (server,) = [each for each in client.servers.all() if each.target.endswith(f":{toy.port}")]
    return server.events[EJECTED]


async def many(client, count, seconds=10.0):
    """What became of so many calls, one after the other."""
    outcomes = []
    for _ in range(count):
        try:
            outcomes.append(await call(client, seconds))
        except GatewayError as error:
            outcomes.append(error)
    return outcomes


@pytest.mark.usefixtures("quick")
def test_one_that_only_fails_is_ejected_and_probed_back():
    @run
    async def test():
        async with toys(None, None) as (client, one, two):
            one.refusal = (grpc.StatusCode.INTERNAL, "broken")
            failed = [each for each in await many(client, 40) if each != b"x"]
            assert {type(each) for each in failed} == {ModelServerFailed}
            times = ejections(client, one)  # it may be back before the last of them
            assert times >= 1
            assert 0 <= len(failed) - times * conduct.FAILURES < conduct.FAILURES
            assert ejections(client, two) == 0
            one.refusal = None
            before = one.calls
            await asyncio.sleep(0.1)
            assert one.calls == before, "no client's request is the probe"
            deadline = time.monotonic() + 30
            while one.calls == before:
                assert await call(client) == b"x"
                assert time.monotonic() < deadline
            assert {*await many(client, 20)} == {b"x"}

    test()


def test_one_that_hangs_is_ejected_while_its_callers_wait(monkeypatch):
    monkeypatch.setattr(conduct, "EJECTED_S", 60.0)  # its health service answers all along

    @run
    async def test():
        async with toys(None, None) as (client, one, two):
            one.takes_s = two.takes_s = 0.01
            assert await many(client, 10) == [b"x"] * 10
            one.delay_s = 3600
            hung = [asyncio.create_task(call(client, 60.0)) for _ in range(2)]
            await until(
                lambda: (one.calls, two.calls) == (6, 6) and any(each.done() for each in hung)
            )
            CLOCK.now += conduct.QUIET_S - 0.1
            assert len(client.servers.well(CLOCK.now)) == 2
            CLOCK.now += 0.1
            assert await many(client, 50) == [b"x"] * 50
            assert (one.calls, two.calls) == (6, 56)
            assert ejections(client, one) == 1
            for task in hung:
                task.cancel()
            await asyncio.gather(*hung, return_exceptions=True)

    test()


def test_one_that_answers_while_the_gateway_stands_still_is_not_ejected(monkeypatch):
    """Its answer is read only after the next requests are: it has neither been quiet, nor slow."""
    monkeypatch.setattr(standstill_module, "LATE_S", LATE_S)
    monkeypatch.setattr(conduct, "EJECTED_S", 60.0)

    @run
    async def test():
        async with toys(None, None) as (client, one, two):
            one.takes_s = two.takes_s = 0.01
            assert await many(client, 10) == [b"x"] * 10
            one.delay_s = 1.0
            held = [asyncio.create_task(call(client, 60.0)) for _ in range(2)]
            await until(lambda: (one.calls, two.calls) == (6, 6))
            CLOCK.now += 3.0
            assert len(client.servers.well(CLOCK.now)) == 2, "quiet"
            assert await asyncio.gather(*held) == [b"x"] * 2
            one.delay_s = 0.0
            assert await many(client, 20) == [b"x"] * 20
            assert ejections(client, one) == ejections(client, two) == 0, "slow"
            one.delay_s = two.delay_s = 3600
            held = [asyncio.create_task(call(client, 60.0)) for _ in range(2)]
            while ejections(client, one) + ejections(client, two) == 0:
                CLOCK.now += LOOK_EVERY_S
                await asyncio.sleep(2 * LOOK_EVERY_S)
                client.servers.well(CLOCK.now)
            for task in held:
                task.cancel()
            await asyncio.gather(*held, return_exceptions=True)

    test()


def test_who_answers_after_a_standstill_is_not_quiet_however_long_it_took(monkeypatch):
    monkeypatch.setattr(standstill_module, "LATE_S", LATE_S)
    monkeypatch.setattr(conduct, "EJECTED_S", 60.0)

    async def goes_on(seconds):
        for _ in range(round(seconds / LOOK_EVERY_S)):
            CLOCK.now += LOOK_EVERY_S
            await asyncio.sleep(2 * LOOK_EVERY_S)

    def held(client):
        return [asyncio.create_task(call(client, 60.0)) for _ in range(2)]

    @run
    async def test():
        async with toys(None, None) as (client, one, two):
            one.takes_s = two.takes_s = 0.01
            assert await many(client, 10) == [b"x"] * 10
            one.delay_s = two.delay_s = 1.5
            before = held(client)
            await until(lambda: (one.calls, two.calls) == (6, 6))
            one.delay_s = two.delay_s = 3600
            CLOCK.now += 3.0
            await goes_on(0.1)
            after = held(client)
            await until(lambda: (one.calls, two.calls) == (7, 7))
            await goes_on(0.1)
            assert await asyncio.gather(*before) == [b"x"] * 2
            for seconds, times in ((conduct.QUIET_S - 0.1, 0), (0.2, 1)):
                await goes_on(seconds)
                client.servers.well(CLOCK.now)
                assert ejections(client, one) == ejections(client, two) == times
            for task in after:
                task.cancel()
            await asyncio.gather(*after, return_exceptions=True)

    test()


def test_one_that_hangs_while_its_health_answers_stays_out_longer_each_time(monkeypatch):
    monkeypatch.setattr(conduct, "EJECTED_S", 0.1)
    times, eject = [], server_module.Server._eject

    def noted(server, now, why):
        times.append(time.monotonic())
        eject(server, now, why)

    monkeypatch.setattr(server_module.Server, "_eject", noted)

    @run
    async def test():
        async with toys(None, None) as (client, one, two):
            one.takes_s = two.takes_s = 0.01
            assert await many(client, 10) == [b"x"] * 10
            one.delay_s, hung = 3600, []
            while len(times) < 4:
                held = one.calls
                hung.append(asyncio.create_task(call(client, 60.0)))
                await until(lambda held=held: hung[-1].done() or one.calls > held)
                CLOCK.now += conduct.QUIET_S
            assert ejections(client, one) == len(times)
            for task in hung:
                task.cancel()
            await asyncio.gather(*hung, return_exceptions=True)
            pauses = [after - before for before, after in itertools.pairwise(times)]
            assert [pause > 0.1 * 2**n for n, pause in enumerate(pauses)] == [True] * 3

    test()


@run
async def test_a_model_that_takes_long_is_no_fault_of_a_server_that_is_back():
    async with toys(None, None) as (client, one, two):
        one.takes_s = two.takes_s = 1.0
        await many(client, 20)
        port = one.port
        await one.server.stop(None)
        await until(lambda: len(ready(client)) == 1)
        again = Toy()
        await again.start(port)
        await until(lambda: len(ready(client)) == 2)
        again.delay_s, two.delay_s, two.takes_s = 3600, 3600, 0.0
        held = [asyncio.create_task(call(client)) for _ in range(4)]
        await until(lambda: again.calls == 2)
        CLOCK.now += 1.0
        assert len(client.servers.well(CLOCK.now)) == 2
        assert ejections(client, again) == ejections(client, two) == 0
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        await again.server.stop(None)


@pytest.mark.parametrize(
    ("slow_s", "other_s", "is_ejected"),
    [(1.0, 0.01, True), (1.0, 0.5, False), (0.2, 0.001, False)],
    ids=["far slower", "twice as slow", "no more than 250 ms"],
)
def test_one_that_is_far_slower_is_ejected(monkeypatch, slow_s, other_s, is_ejected):
    monkeypatch.setattr(conduct, "EJECTED_S", 60.0)

    @run
    async def test():
        async with toys(None, None) as (client, one, two):
            one.takes_s, two.takes_s = slow_s, other_s
            assert await many(client, 40) == [b"x"] * 40
            assert ejections(client, one) == is_ejected
            assert ejections(client, two) == 0
            assert two.calls == 20 or is_ejected
            assert one.calls <= 2 or not is_ejected

    test()


@run
async def test_callers_that_leave_do_not_get_a_server_ejected():
    async with toys(None, None) as (client, one, two):
        one.delay_s = two.delay_s = 3600
        for _ in range(10):
            task = asyncio.create_task(call(client))
            before = one.calls + two.calls
            await until(lambda before=before: one.calls + two.calls > before)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await until(lambda: one.cancelled + two.cancelled == 10)
        one.delay_s = two.delay_s = 0.0
        assert await many(client, 4) == [b"x"] * 4
        assert ejections(client, one) == ejections(client, two) == 0
        assert all(server.in_flight == 0 for server in client.servers.all())


@run
async def test_a_lone_server_is_never_ejected():
    async with toys(None) as (client, one):
        one.refusal = (grpc.StatusCode.INTERNAL, "broken")
        assert {type(each) for each in await many(client, 20)} == {ModelServerFailed}
        assert one.calls == 20
        assert ejections(client, one) == 0


@run
async def test_where_all_are_ejected_all_are_asked():
    async with toys(None, None) as (client, one, two):
        one.refusal = two.refusal = (grpc.StatusCode.INTERNAL, "broken")
        await many(client, 20)
        one.refusal = two.refusal = None
        assert await call(client) == b"x"


@pytest.mark.parametrize(
    ("refusal", "kind", "calls"),
    [
        ((grpc.StatusCode.UNAVAILABLE, "not yet"), ModelServerUnavailable, 3),
        ((grpc.StatusCode.CANCELLED, "stopping"), ModelServerUnavailable, 1),
        ((grpc.StatusCode.RESOURCE_EXHAUSTED, "full"), ModelServerOverloaded, 1),
        ((grpc.StatusCode.UNAVAILABLE, "Socket closed"), ModelServerUnavailable, 1),
        ((grpc.StatusCode.INTERNAL, "broken"), ModelServerFailed, 1),
    ],
    ids=lambda value: str(value)[:40],
)
def test_only_what_was_not_begun_is_tried_again(refusal, kind, calls):
    @run
    async def test():
        async with toys(None) as (client, one):
            one.refusal = refusal
            with pytest.raises(kind):
                await call(client)
            assert one.calls == calls

    test()


class Absent(Toy):
    """One that has no version when it is asked, and says these states of them after that."""

    def __init__(self, states):
        super().__init__()
        self.refusal = grpc.StatusCode.NOT_FOUND, "Servable not found for request"
        versions = [ModelVersionStatus(version=key, state=states[key]) for key in states]
        self.status = GetModelStatusResponse(model_version_status=versions)

    def service(self, details):
        if details.method == GET_STATUS:
            return grpc.unary_unary_rpc_method_handler(self._status)
        return super().service(details)

    async def _status(self, _request, _context):
        return self.status.SerializeToString()


@pytest.mark.parametrize(
    ("states", "version", "words", "calls"),
    [
        ({1: State.LOADING}, None, "is loading", ATTEMPTS),
        ({1: State.LOADING, 2: State.AVAILABLE}, None, "was loading", ATTEMPTS),
        ({1: State.LOADING, 2: State.AVAILABLE}, 1, "is loading", 1),
        ({0: State.START, 2: State.AVAILABLE}, 0, "is loading", 1),
        ({1: State.LOADING, 2: State.AVAILABLE}, 2, "was loading", ATTEMPTS),
        ({1: State.LOADING, 2: State.END}, 2, None, 1),
        ({1: State.LOADING}, 2, None, 1),
        ({1: State.END}, None, None, 1),
    ],
)
def test_what_is_about_to_be_served_is_waited_for_but_no_version_for_which_another_may_answer(
    states, version, words, calls
):
    @run
    async def test():
        model = ModelRef("m", version)
        async with toys(Absent(states)) as (client, one):
            kind = ModelServerUnavailable if words else ModelNotFound
            with pytest.raises(kind, match=words) as raised:
                await client.call(METHOD, b"x", model, Caller.within(10))
            assert getattr(raised.value, "loading", False) == (words == "is loading")
            assert one.calls == calls

    test()


# A process of its own that says when a call has begun, and never answers it.
DYING = """
import threading
from concurrent.futures import ThreadPoolExecutor
import grpc

class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(self.call) if "toy" in details.method else None

    def call(self, request, context):
        print("begun", flush=True)
        threading.Event().wait()

server = grpc.server(ThreadPoolExecutor(4), handlers=[Handler()])
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
server.wait_for_termination()
"""


@run
async def test_a_call_that_its_server_dies_of_is_taken_to_no_other():
    processes = [
        subprocess.Popen([sys.executable, "-c", DYING], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ports = [int(process.stdout.readline()) for process in processes]
    client = ModelServer(",".join(f"127.0.0.1:{port}" for port in ports))
    await client.open()
    await until(lambda: len(ready(client)) == 2)
    task = asyncio.create_task(call(client, 60))
    begun = [asyncio.create_task(asyncio.to_thread(each.stdout.readline)) for each in processes]
    done, _ = await asyncio.wait(begun, return_when=asyncio.FIRST_COMPLETED)
    dying = begun.index(done.pop())
    processes[dying].kill()
    with pytest.raises(ModelServerUnavailable) as raised:
        await task
    assert raised.value.begun, str(raised.value)
    processes[1 - dying].kill()
    assert await begun[1 - dying] == "", "the other has not been asked"
    await client.close()
    for process in processes:
        process.wait()
        process.stdout.close()


@run
async def test_the_deadline_and_the_callers_metadata_go_along():
    async with toys(None) as (client, one):
        one.delay_s = 3600
        caller = Caller.of({"x-request-id": "abc"}, time.monotonic(), 3.0)
        with pytest.raises(DeadlineExceeded, match="No answer within 3 s"):
            await client.call(METHOD, b"x", MODEL, caller)
        assert one.metadata["x-request-id"] == "abc"
        await until(lambda: one.cancelled == 1)


@run
async def test_a_proxy_in_the_environment_is_not_for_model_servers():
    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as proxy:
        patch.setenv("http_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        patch.delenv("no_proxy", raising=False)
        async with toys(None) as (client, _):
            assert await call(client) == b"x"


def test_names_are_looked_up_again(monkeypatch):
    """A name whose addresses change, as those of a headless service do."""
    monkeypatch.setattr(servers_module, "RESOLVE_EVERY_S", 0.05)
    addresses = {}

    async def targets(address):
        if address not in addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return addresses[address]

    monkeypatch.setattr(servers_module, "_targets", targets)

    @run
    async def test():
        one, two = Toy(), Toy()
        first, second = [{f"ipv4:127.0.0.1:{await toy.start()}"} for toy in (one, two)]
        client = ModelServer("pods:1, gone:1")
        addresses["gone:1"] = set()
        await client.open()
        with pytest.raises(ModelServerUnavailable, match="pods:1, gone:1 cannot be looked up"):
            await call(client)
        addresses["pods:1"] = first
        await until(lambda: ready(client))
        assert await call(client) == b"x"
        addresses["pods:1"] = first | second
        await until(lambda: len(ready(client)) == 2)
        assert await many(client, 4) == [b"x"] * 4
        assert two.calls >= 1
        addresses["pods:1"] = second
        await until(lambda: len(client.servers.all()) == 1)
        before = one.calls
        assert await many(client, 4) == [b"x"] * 4
        assert one.calls == before
        addresses.clear()
        await asyncio.sleep(0.2)
        assert await call(client) == b"x", "what was known stays in use"
        addresses["gone:1"] = first
        await until(lambda: len(ready(client)) == 2, 30)
        await client.close()
        for toy in (one, two):
            await toy.server.stop(None)

    test()


def test_a_name_that_was_not_there_at_first_is_soon_looked_up_again(monkeypatch):
    monkeypatch.setattr(servers_module, "RESOLVE_EVERY_S", 3600)
    monkeypatch.setattr(servers_module, "UNKNOWN_EVERY_S", 0.05)
    found = []

    async def targets(_address):
        if not found:
            raise socket.gaierror(socket.EAI_AGAIN, "the resolver has just begun")
        return set(found)

    monkeypatch.setattr(servers_module, "_targets", targets)

    @run
    async def test():
        toy = Toy()
        client = ModelServer("pods:1")
        await client.open()
        assert not client.servers.all()
        found.append(f"ipv4:127.0.0.1:{await toy.start()}")
        await until(lambda: ready(client), 30)
        assert await call(client) == b"x"
        await client.close()
        await toy.server.stop(None)

    test()


@run
async def test_every_address_of_a_name_is_used():
    found = await servers_module._targets("localhost:8500")
    assert "ipv4:127.0.0.1:8500" in found
    assert found <= {"ipv4:127.0.0.1:8500", "ipv6:[::1]:8500"}
    assert await servers_module._targets("[::1]:8500") == {"ipv6:[::1]:8500"}
    assert await servers_module._targets("unix:/tmp/x") == {"unix:/tmp/x"}


@run
async def test_without_addresses_there_is_nobody():
    servers = Servers("")
    await servers.open()
    assert (servers.choose(), servers.any(), servers.all()) == (None, None, [])
    await servers.close()

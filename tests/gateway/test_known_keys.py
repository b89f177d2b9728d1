"""Keys that are known by themselves for a moment: which, and that nothing holds longer by it."""

import asyncio
import datetime
import itertools
import threading
import time

import grpc
import numpy as np
import pytest

from service.gateway.access import guard as guard_module
from service.gateway.access import watched as watched_module
from service.gateway.access.book import book_of
from service.gateway.access.guard import guard_of
from service.gateway.access.keys import digest_of, new_key
from service.gateway.access.limits import BYTES, REQUESTS, ROWS
from service.gateway.access.watched import LOOK_EVERY_S
from service.gateway.app import create_app
from service.gateway.caller import Caller
from service.gateway.errors import RateLimited, Unauthenticated
from service.gateway.gateway import Gateway
from service.gateway.loops import OwnLoopRunner
from service.gateway.rpc import server as rpc_server
from service.gateway.settings import Settings
from sluice.wire.protos.serving_pb2 import PredictRequest
from sluice.wire.protos.serving_pb2_grpc import PredictionServiceStub
from sluice.wire.tensors import encode_tensor
from tests.gateway.access import GRPC, HTTP, STATUS_OF
from tests.processes import free_port

KEY = new_key("known")
SHOWN = {"x-api-key": KEY}
FILE = f'[keys.known]\nsha256 = "{digest_of(KEY)}"\nmodels = ["*"]\n'


class Clock:
    """What the guard takes for `time`: it stands still unless a test sets it."""

    def __init__(self):
        self.now = 1_800_000_000.0

    def monotonic(self):
        return self.now

    def time(self):
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    clock = Clock()
    for module in (guard_module, watched_module):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def path(tmp_path):
    book_of.cache_clear()  # each test spends from the beginning
    path = tmp_path / "access.toml"
    path.write_text(FILE)
    return path


@pytest.fixture
def guard(path):
    return guard_of(Settings(access_file=str(path)))


def identify(guard):
    return guard.identify(SHOWN, b"", "-")


def test_a_key_that_was_good_is_known_until_the_next_look_is_due(guard, clock):
    async def run():
        assert guard.known(SHOWN) is None
        holder = await identify(guard)
        assert holder.grant.id == "known"
        others = {"x-api-key": "another"}
        for shown in (SHOWN, {"authorization": f"bearer {KEY}"} | others):
            assert guard.known(shown) is holder
        assert await identify(guard) is holder
        wrong = (others, {"x-api-key": KEY[:-1]}, {"x-api-key": f"{KEY}0"})
        for shown in ({}, *wrong, {"authorization": KEY}, {"authorization": "Bearer x"} | SHOWN):
            assert guard.known(shown) is None
        clock.now += LOOK_EVERY_S
        assert guard.known(SHOWN) is None
        assert (await identify(guard)).grant is holder.grant

    asyncio.run(run())


def test_what_the_file_says_is_in_force_once_it_is_read(guard, path):
    async def run():
        access = guard._file.current
        holder = await identify(guard)
        path.write_text(f"{FILE}revoked = true\n")
        guard._file.look()
        assert guard.known(SHOWN) is None
        guard._remember(KEY, holder, access)  # of a request that had begun before
        assert guard.known(SHOWN) is None
        with pytest.raises(Unauthenticated, match="has been revoked"):
            await identify(guard)
        path.write_text(f"{FILE}burst = 5\nrequests_per_s = 1\n")
        guard._file.look()
        assert (await identify(guard)).account.name == "key known"
        assert guard.known(SHOWN) is await identify(guard)

    asyncio.run(run())


def test_a_key_that_is_taken_back_under_load_is_refused_from_then_on(
    launch_grpc_gateway, modelserver, path
):
    front, address = launch_grpc_gateway(modelserver.address, models="affine", access_file=path)
    done, replies = threading.Event(), {}

    def ask(way, method, where):
        while not done.is_set():
            began = time.monotonic()
            status = method(where, "affine", SHOWN).status
            replies.setdefault(way, []).append((began, status))

    def eventually(each):
        deadline = time.monotonic() + 60
        while not (len(replies) == len(clients) and all(map(each, replies.values()))):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    ways = {"HTTP": (HTTP["json"], front.url), "gRPC": (GRPC["predict"], address)}
    clients = [threading.Thread(target=ask, args=(way, *of)) for way, of in ways.items()]
    for client in clients:
        client.start()
    try:
        eventually(lambda seen: len(seen) > 3)
        path.with_suffix(".new").write_text(f"{FILE}revoked = true\n")
        path.with_suffix(".new").replace(path)
        front.wait_for("has changed, and is in force")
        in_force = time.monotonic()
        eventually(lambda seen: sum(began > in_force for began, _ in seen) > 3)
    finally:
        done.set()
        for client in clients:
            client.join()
    for seen in replies.values():
        assert seen[0][1] == 200
        assert {status for began, status in seen if began > in_force} == {401}


def test_a_key_that_expires_before_the_next_look_is_known_until_then(clock, path):
    ends = datetime.datetime.fromtimestamp(clock.now + LOOK_EVERY_S / 2, datetime.UTC)
    path.write_text(f"{FILE}expires = {ends.isoformat()}\n")
    guard = guard_of(Settings(access_file=str(path)))

    async def run():
        holder = await identify(guard)
        assert guard.known(SHOWN) is holder
        clock.now += LOOK_EVERY_S / 2
        assert guard.known(SHOWN) is None
        with pytest.raises(Unauthenticated, match="has expired"):
            await identify(guard)

    asyncio.run(run())


def test_what_is_not_good_is_never_known(guard):
    async def run():
        for text in ("", "another", new_key("known"), new_key("nobody")):
            with pytest.raises(Unauthenticated):
                await guard.identify({"x-api-key": text}, b"", "-")
            assert not guard._known

    asyncio.run(run())


def test_the_worker_looks_before_it_is_due_so_that_no_request_waits(guard, clock):
    async def run():
        guard.look()
        assert guard._file._looking is None
        clock.now += LOOK_EVERY_S / 2  # the worker's
        guard.look()
        await guard._file._looking
        assert guard._file.due == clock.now + LOOK_EVERY_S

    asyncio.run(run())


def test_while_the_file_system_does_not_answer_keys_are_looked_up(guard, clock, monkeypatch):
    answers = threading.Event()
    monkeypatch.setattr(guard._file, "look", answers.wait)

    async def run():
        clock.now += LOOK_EVERY_S
        try:
            assert (await identify(guard)).grant.id == "known"
            assert not guard._known
        finally:
            answers.set()

    asyncio.run(run())


def test_a_key_is_let_go_while_nobody_asks(guard):
    async def run():
        await identify(guard)
        assert guard._known.keys() == {KEY}
        async with asyncio.timeout(60):
            while guard._known:
                await asyncio.sleep(0.01)

    asyncio.run(run())


def test_who_is_let_in_at_hand_is_counted_as_all_others_are(path):
    path.write_text(f"{FILE}requests_per_s = 1e-6\nburst = 1000\n")
    gateway = Gateway.of(Settings(access_file=str(path), access_log="off", workers=1))

    async def run():
        at_hand = []
        for _ in range(2000):
            caller = Caller.within(60)
            at_hand.append(gateway.lets_in(SHOWN, 0, caller))
            if not at_hand[-1]:
                try:
                    await gateway.identify(SHOWN, "-", 0, caller)
                except RateLimited:
                    return at_hand[:-1]
            assert (caller.grant.id, caller.account.name) == ("known", "key known")
        return at_hand

    at_hand = asyncio.run(run())
    assert 990 <= len(at_hand) <= 1000
    assert at_hand.count(True) > 500  # each time that some are spent ahead, ten


def test_what_is_announced_beyond_all_bounds_is_not_let_in_at_hand(path):
    settings = Settings(access_file=str(path), access_log="off")
    gateway = Gateway.of(settings)

    async def run():
        caller, most = Caller.within(60), settings.max_body_bytes
        await gateway.identify(SHOWN, "-", 0, caller)
        assert gateway.lets_in(SHOWN, most, caller)
        assert not gateway.lets_in(SHOWN, most + 1, caller)

    asyncio.run(run())


def test_each_request_pays_once_for_what_it_is(path, modelserver):
    limits = "requests_per_s = 1\nburst = 1e5\nrows_per_s = 1e5\nbytes_per_s = 1e6"
    path.write_text(f"{FILE.replace('*', 'affine')}{limits}\n")
    settings = Settings(
        model_server=modelserver.address,
        access_file=str(path),
        access_log="off",
        http_host="127.0.0.1",
        grpc_port=free_port(),
        workers=1,
    )
    gateway = Gateway.of(settings)
    runner = OwnLoopRunner(gateway.predictions)
    client = create_app(settings, gateway, runner).test_client()
    body, message = b'{"instances": [1.0, 2.0, 3.0]}', PredictRequest()
    message.inputs["x"].CopyFrom(encode_tensor(np.float32([1, 2, 3])))

    def over_http(model):
        path = f"/v1/models/{model}:predict"
        return client.post(path, data=body, headers=SHOWN).status_code, len(body)

    def over_grpc(model):
        message.model_spec.name = model
        call = PredictionServiceStub(channel).Predict.with_call
        try:
            code = call(message, timeout=60, metadata=list(SHOWN.items()))[1].code()
        except grpc.RpcError as error:
            code = error.code()
        return STATUS_OF[code], message.ByteSize()

    server = runner.run(rpc_server.start(gateway))
    with grpc.insecure_channel(f"127.0.0.1:{settings.grpc_port}") as channel:
        assert over_http("affine")[0] == 200
        at_hand = gateway.guard._accounts["key known"].account._at_hand
        for ask, (model, status, rows) in itertools.product(
            (over_http, over_grpc), (("affine", 200, 3), ("pair", 403, 0))
        ):
            before = dict(at_hand)
            answered, size = ask(model)
            assert answered == status
            paid = {kind: before[kind] - left for kind, left in at_hand.items()}
            assert paid == {REQUESTS: 1, BYTES: size, ROWS: rows}
    runner.run(server.stop())

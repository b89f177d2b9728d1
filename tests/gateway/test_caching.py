"""Kept answers: of what, for whom, how long; and those who ask the same at the same time."""

import asyncio
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import grpc
import numpy as np
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.gateway import caching
from service.gateway.access.keys import digest_of as key_digest
from service.gateway.access.keys import new_key
from service.gateway.answer import Answer
from service.gateway.caching import ENTRY_BYTES, Cache, digest_of
from service.gateway.caller import Caller
from service.gateway.flights import Flights
from service.gateway.settings import Settings
from service.gateway.traffic import kind_of
from sluice.wire.model_ref import ModelRef
from sluice.wire.protos.serving_pb2 import PredictRequest
from sluice.wire.protos.serving_pb2_grpc import PredictionServiceStub
from sluice.wire.tensors import encode_tensor
from tests.gateway.access import GRPC, HTTP

KEYS = {name: new_key(name) for name in ("good", "other", "few")}
ACCESS = f"""
[keys.good]
sha256 = "{key_digest(KEYS["good"])}"
models = ["*"]

[keys.other]
sha256 = "{key_digest(KEYS["other"])}"
models = ["pair"]

[keys.few]
sha256 = "{key_digest(KEYS["few"])}"
models = ["*"]
requests_per_s = 0.001
burst = 1
"""
GOOD = {"X-API-Key": KEYS["good"]}


@pytest.fixture(scope="module")
def door(launch_grpc_gateway, slow_server, tmp_path_factory):
    """A gateway that keeps the answers of `affine` and `m*`, and its gRPC address."""
    access = tmp_path_factory.mktemp("access") / "access.toml"
    access.write_text(ACCESS)
    settings = {"access_file": access, "cache_models": "affine, m*"}
    return launch_grpc_gateway(slow_server[1], **settings)


@pytest.fixture
def served(slow, door):
    """(the model server, which answers at once with version 1; the gateway's URL; its address)."""
    server, (gateway, address) = slow[0], door
    server.version = 1
    server.go.set()
    return server, gateway.url, address


@pytest.fixture
def slowly(served):
    """The same, where it answers when it is told to."""
    served[0].go.clear()
    return served


def counted(url, model):
    """By outcome, so many predictions."""
    text = requests.get(f"{url}/metrics", headers=GOOD, timeout=30).text
    start = f'sluice_cache_requests_total{{model="{model}",outcome="'
    found = [line.removeprefix(start) for line in text.splitlines() if line.startswith(start)]
    return {each.partition('"')[0]: int(float(each.rpartition(" ")[2])) for each in found}


def ask(url, model, x, headers=GOOD, path="", timeout_ms=60_000):
    """The status, the prediction, what is said of the cache."""
    headers = GOOD | headers | {"X-Request-Timeout-Ms": str(timeout_ms)}
    path = f"{url}/v1/models/{model}{path}:predict"
    reply = requests.post(path, json={"instances": [x]}, headers=headers, timeout=60)
    return (
        reply.status_code,
        reply.json().get("predictions"),
        reply.headers.get("Cache-Status", "").removeprefix("sluice; "),
    )


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


def test_the_same_in_every_dialect_is_asked_once(served, door):
    server, url, address = served
    replies = [HTTP[dialect](url, "affine", GOOD) for dialect in ("json", "oip", "json")]
    replies += [GRPC[dialect](address, "affine", GOOD) for dialect in GRPC]
    assert [each.status for each in replies] == [200] * 5
    assert len(server.contexts) == 1
    assert counted(url, "affine") == {"hit": 4, "miss": 1}
    assert replies[0].headers["cache-status"] == "sluice; fwd=miss" and "age" not in replies[0]
    assert replies[1].headers["cache-status"] == "sluice; hit"
    assert 0 <= int(replies[1].headers["age"]) < 60
    door[0].wait_for(
        r"POST /v2/models/affine/infer 200 .* version=1 .* rows=[1-9] joined=0 .* cache=hit"
    )


def test_grpc_tells_it_behind_the_answer(served):
    _, _, address = served
    request = PredictRequest()
    request.model_spec.name = "m-grpc"
    request.inputs["x"].CopyFrom(encode_tensor(np.float32([1, 2])))
    told = []
    with grpc.insecure_channel(address) as channel:
        for _ in range(2):
            _, call = PredictionServiceStub(channel).Predict.with_call(
                request, timeout=30, metadata=[("x-api-key", KEYS["good"])]
            )
            told.append(dict(call.trailing_metadata()).get("cache-status"))
    assert told == ["sluice; fwd=miss", "sluice; hit"]


def test_answers_are_those_of_what_was_asked(served):
    _, url, _ = served
    for said in ("fwd=miss", "hit"):
        assert ask(url, "m-1", 10.0) == (200, [10.0], said)
        assert ask(url, "m-1", 12.0) == (200, [12.0], said)
        assert ask(url, "m-2", 10.0) == (200, [10.0], said)
    assert ask(url, "m-1", 10.0, path="/versions/1") == (200, [10.0], "hit")
    assert ask(url, "other", 10.0) == (200, [10.0], "")


@pytest.mark.parametrize("directive", ["no-store", "max-age=0, No-Cache"])
def test_who_wants_an_answer_of_the_models_own_gets_it_and_it_is_not_kept(served, directive):
    server, url, address = served
    headers = GOOD | {"Cache-Control": directive}
    model = f"m-{directive[0]}"
    for _ in range(2):
        assert ask(url, model, 1.0, headers) == (200, [1.0], "fwd=request")
        assert GRPC["predict"](address, model, headers).status == 200
    assert len(server.contexts) == 4
    assert ask(url, model, 1.0) == (200, [1.0], "fwd=miss")
    assert counted(url, model) == {"passed": 4, "miss": 1}


def test_who_may_not_ask_is_not_given_what_is_kept(served):
    _, url, address = served
    few, other = ({"X-API-Key": KEYS[name]} for name in ("few", "other"))
    assert HTTP["json"](url, "affine", GOOD).status == 200
    assert HTTP["json"](url, "affine", {}).status == 401
    for ways, where in ((HTTP, url), (GRPC, address)):
        assert next(iter(ways.values()))(where, "affine", other).status == 403
    assert [HTTP["json"](url, "affine", few).status for _ in range(2)] == [200, 429]


def test_a_failed_answer_is_not_kept(served):
    server, url, _ = served
    server.refusal = grpc.StatusCode.INVALID_ARGUMENT
    assert [ask(url, "m-bad", 1.0)[0] for _ in range(2)] == [400, 400]
    server.refusal = None
    assert ask(url, "m-bad", 1.0) == (200, [1.0], "fwd=miss")


def test_who_waits_for_the_same_waits_for_one_call(slowly):
    server, url, _ = slowly
    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(ask, url, "m-wait", 1.0) for _ in range(5)]
        until(lambda: in_flight(url) == 5)
        assert ask(url, "m-wait", 1.0, timeout_ms=100)[0] == 504
        other = pool.submit(ask, url, "m-wait", 2.0)
        server.go.set()
        assert sorted(each.result() for each in asked) == [
            *[(200, [1.0], "fwd=miss")],
            *[(200, [1.0], "fwd=miss; collapsed")] * 4,
        ]
        assert other.result() == (200, [2.0], "fwd=miss")
    assert len(server.contexts) == 2


def in_flight(url):
    """Requests that the gateway works on."""
    text = requests.get(f"{url}/metrics", headers=GOOD, timeout=30).text
    (line,) = [each for each in text.splitlines() if each.startswith("sluice_requests_in_flight")]
    return int(float(line.rpartition(" ")[2]))


@pytest.mark.parametrize(("leaves", "x"), [("late", 3.0), ("hung up", 4.0)])
def test_one_who_leaves_takes_no_other_along(slowly, leaves, x):
    server, url, _ = slowly
    host, _, port = url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port))) as leader:
        timeout_ms = 5000 if leaves == "late" else 60_000
        body = b'{"instances": [%.1f]}' % x
        leader.sendall(
            b"POST /v1/models/m-left:predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n"
            b"X-API-Key: %b\r\nX-Request-Timeout-Ms: %d\r\n\r\n%b"
            % (len(body), KEYS["good"].encode(), timeout_ms, body)
        )
        until(lambda: server.contexts)
        with ThreadPoolExecutor(3) as pool:
            followers = [pool.submit(ask, url, "m-left", x) for _ in range(3)]
            until(lambda: in_flight(url) >= 3)
            if leaves == "hung up":
                leader.close()
            until(lambda: len(server.contexts) > 1)
            server.go.set()
            assert [each.result()[:2] for each in followers] == [(200, [x])] * 3


def test_an_error_is_that_ones_who_asked():
    flights, asked = Flights(), []

    async def ask(number):
        asked.append(number)
        await asyncio.sleep(0.01)
        if number == 0:
            raise ValueError("the first one's")
        return number

    async def run():
        shared = [flights.share("key", partial(ask, number)) for number in range(3)]
        first, *others = await asyncio.gather(*shared, return_exceptions=True)
        assert isinstance(first, ValueError)
        assert others == [(1, False), (2, False)]
        assert await flights.share("key", partial(ask, 3)) == (3, False)

    asyncio.run(run())
    assert asked == [0, 1, 2, 3]


def test_a_version_that_is_replaced_is_not_answered_for(served):
    server, url, _ = served
    assert [ask(url, "m-swap", 6.0)[2] for _ in range(2)] == ["fwd=miss", "hit"]
    server.version = 2
    until(lambda: ask(url, "m-swap", 6.0)[2] == "fwd=miss")
    assert len(server.contexts) == 2
    assert ask(url, "m-swap", 6.0)[2] == "hit"


@pytest.fixture
def keep():
    """`keep(**settings)` -> `(ask, held)`: `ask(x, version=1)` answers a kilobyte and says whether
    the model was asked for it; `held` are the bytes that are kept after each."""

    def make(**settings):
        held = [0]
        cache = Cache(Settings(cache_models="*", **settings), held.append)

        def ask(x, version=1, answers=None, **model):
            asked = []

            async def answer():
                asked.append(x)
                return Answer({"y": np.zeros(1024, np.uint8)}, answers or version)

            async def live_version(*_):
                return version

            inputs = {"x": np.array([x])}
            kind = kind_of(ModelRef("m", **model), "serving_default", (), inputs)
            asyncio.run(cache.answer(kind, inputs, Caller.within(60), answer, live_version))
            return bool(asked)

        return ask, held

    return make


def test_it_keeps_to_its_bytes_and_the_longest_unused_go(keep):
    each = 1024 + ENTRY_BYTES
    ask, held = keep(cache_max_bytes=3 * each)
    assert [ask(x) for x in (1, 2, 3, 1, 4, 1, 2)] == [True, True, True, False, True, False, True]
    assert max(held) == 3 * each
    ask, held = keep(cache_max_bytes=each - 1)
    assert [ask(1), ask(1)] == [True, True]
    assert held == [0]


def test_it_keeps_no_longer_than_it_may(keep):
    ask, _ = keep(cache_max_age_s=0.05)
    ask(1)
    until(lambda: ask(1))


def test_an_answer_is_its_versions(keep):
    ask, _ = keep()
    assert [ask(1), ask(2), ask(1, label="old")] == [True, True, False]
    assert ask(1, version=2, answers=3)
    assert [ask(1, version=2), ask(1, version=3), ask(1, version=1)] == [True, False, False]
    assert [ask(9, version=0), ask(9, version=0)] == [True, True]


ARRAYS = arrays.arrays(
    st.sampled_from(["u1", "i1", "<f4", "<i8"]), arrays.array_shapes(max_dims=2, max_side=3)
)


@settings(max_examples=30)
@given(one=ARRAYS, other=ARRAYS, names=st.tuples(*[st.sampled_from(["x", "y", ""])] * 2))
def test_what_differs_has_another_digest(one, other, names):
    same = (
        one.dtype == other.dtype
        and one.shape == other.shape
        and one.tobytes() == other.tobytes()
        and names[0] == names[1]
    )
    assert (digest_of({names[0]: one}) == digest_of({names[1]: other})) == same
    strings = [np.array(each, object) for each in ([b"ab", b"c"], [b"a", b"bc"])]
    assert digest_of({"x": strings[0]}) != digest_of({"x": strings[1]})


def test_the_digest_is_each_processs_own(monkeypatch):
    ours = digest_of({"x": np.ones(3)})
    monkeypatch.setattr(caching, "_SECRET", bytes(64))
    assert digest_of({"x": np.ones(3)}) != ours

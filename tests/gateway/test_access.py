"""Keys at the door: the same answers in every dialect, over the front, plain WSGI and gRPC."""

import datetime
import gzip
import re
import threading
import time
from http.client import HTTPConnection
from pathlib import Path

import grpc
import numpy as np
import pytest
import requests

from service.gateway.access.keys import digest_of, new_key
from sluice.wire.contract import OIP_SERVICE, PREDICTION_SERVICE
from sluice.wire.protos.inference_pb2 import ModelInferRequest
from sluice.wire.protos.serving_pb2 import (
    GetModelStatusRequest,
    ModelSpec,
    MultiInferenceRequest,
    PredictRequest,
)
from sluice.wire.protos.serving_pb2_grpc import ModelServiceStub, PredictionServiceStub
from sluice.wire.tensors import encode_tensor
from tests.gateway.access import CASES, GRPC, HTTP

KEYS = {
    name: new_key(name) for name in ("good", "other", "reader", "expired", "revoked", "forgotten")
}
YESTERDAY = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
FILE = f"""
[keys.good]
sha256 = "{digest_of(KEYS["good"])}"
models = ["aff*"]

[keys.other]
sha256 = "{digest_of(KEYS["other"])}"
models = ["pair"]

[keys.reader]
sha256 = "{digest_of(KEYS["reader"])}"
models = ["*"]
operations = ["metadata", "status"]

[keys.expired]
sha256 = "{digest_of(KEYS["expired"])}"
models = ["*"]
expires = {YESTERDAY.isoformat()}

[keys.revoked]
sha256 = "{digest_of(KEYS["revoked"])}"
models = ["*"]
revoked = true
"""
NOBODYS = new_key("nobody")
WRONG = f"{KEYS['good'][:-1]}{'0' if KEYS['good'][-1] != '0' else '1'}"


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


# What is shown, of which model, and what comes of it.
TABLE = {
    "a good key": (bearer(KEYS["good"]), "affine", 200, ""),
    "in a header of its own": ({"X-API-Key": KEYS["good"]}, "affine", 200, ""),
    "none": ({}, "affine", 401, "A key is needed here"),
    "a scheme that is a proxy's": ({"Authorization": "Basic eDp5"}, "affine", 401, "A key is need"),
    "one character wrong": (bearer(WRONG), "affine", 401, "The key is not known here"),
    "of an id that is not there": (bearer(NOBODYS), "affine", 401, "The key is not known here"),
    "of no key's form": (bearer("secret-words"), "affine", 401, "The key is not known here"),
    "not in the file": (bearer(KEYS["forgotten"]), "affine", 401, "The key is not known here"),
    "expired": (bearer(KEYS["expired"]), "affine", 401, 'The key "expired" has expired at '),
    "revoked": (bearer(KEYS["revoked"]), "affine", 401, 'The key "revoked" has been revoked'),
    "of another model": (
        bearer(KEYS["other"]),
        "affine",
        403,
        'The key "other" may not do "predict" with the model "affine"',
    ),
    "of a model that there is not": (
        bearer(KEYS["other"]),
        "nothing",
        403,
        'The key "other" may not do "predict" with the model "nothing"',
    ),
    "for another operation": (
        bearer(KEYS["reader"]),
        "affine",
        403,
        'The key "reader" may not do "predict" with the model "affine"',
    ),
}


@pytest.fixture(scope="module")
def access_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("access") / "access.toml"
    path.write_text(FILE)
    return path


@pytest.fixture(scope="module")
def doors(launch_grpc_gateway, launch_gateway, modelserver, access_file):
    """By way, where it is asked; and the gateways' processes."""
    settings = {"models": "affine,pair,echo", "access_file": access_file}
    front, address = launch_grpc_gateway(modelserver.address, **settings)
    wsgi = launch_gateway(modelserver.address, "wsgi", **settings)
    return {"front": front.url, "wsgi": wsgi.url, "grpc": address}, [front, wsgi]


@pytest.mark.parametrize("case", TABLE)
@pytest.mark.parametrize("way, dialect", CASES, ids=map(" ".join, CASES))
def test_who_is_let_in(doors, way, dialect, case):
    headers, model, status, message = TABLE[case]
    reply = (HTTP | GRPC)[dialect](doors[0][way], model, headers)
    assert (reply.status, reply.message[: len(message)]) == (status, message)
    if status == 401:
        error = (
            ', error="invalid_token"' if case not in ("none", "a scheme that is a proxy's") else ""
        )
        assert reply.headers["www-authenticate"] == f'Bearer realm="sluice"{error}'


def test_no_key_is_in_a_log_and_whose_request_it_was_is(doors):
    for process in doors[1]:
        requests.get(f"{process.url}/v1/models/affine", headers=bearer(KEYS["good"]), timeout=30)
        process.wait_for(r"good@127\.0\.0\.1 \S+ GET /v1/models/affine 200")
        secrets = [*KEYS.values(), WRONG, NOBODYS, "secret-words", *map(digest_of, KEYS.values())]
        assert not [secret for secret in secrets if secret in process.log]


def test_two_keys_are_none_whichever_is_good(doors):
    where, _ = doors
    keys = [KEYS["good"], KEYS["other"]]
    for first, second in (keys, keys[::-1]):
        for way in ("front", "wsgi"):
            connection = HTTPConnection(where[way].removeprefix("http://"), timeout=30)
            connection.putrequest("GET", "/v1/models/affine")
            connection.putheader("X-API-Key", first)
            connection.putheader("X-API-Key", second)
            connection.endheaders()
            assert connection.getresponse().status == 401
            connection.close()
        with grpc.insecure_channel(where["grpc"]) as channel:
            call = ModelServiceStub(channel).GetModelStatus.future(
                GetModelStatusRequest(model_spec=ModelSpec(name="affine")),
                metadata=[("x-api-key", first), ("x-api-key", second)],
                timeout=30,
            )
            assert call.code() is grpc.StatusCode.UNAUTHENTICATED


def test_over_grpc_who_may_not_ask_is_told_before_the_message_comes(doors):
    never = threading.Event()

    def message():
        never.wait(60)
        yield b""

    with grpc.insecure_channel(doors[0]["grpc"]) as channel:
        ask = channel.stream_unary("/tensorflow.serving.PredictionService/Predict")
        call = ask.future(message(), metadata=[("x-api-key", WRONG)], timeout=30)
        assert call.code() is grpc.StatusCode.UNAUTHENTICATED
        never.set()


# What names a model, as the messages of these methods begin.
BEGINNINGS = {
    f"{PREDICTION_SERVICE}/Predict": PredictRequest(model_spec=ModelSpec(name="affine")),
    f"{PREDICTION_SERVICE}/MultiInference": MultiInferenceRequest(
        tasks=[{"model_spec": ModelSpec(name="affine")}]
    ),
    f"{OIP_SERVICE}/ModelInfer": ModelInferRequest(model_name="affine"),
}
UNREADABLE = b"\x12\x05..."  # a field 2 that ends too early


def code_of(address, method, message, key):
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(f"/{method}")
        return call.future(message, metadata=[("x-api-key", KEYS[key])], timeout=30).code()


@pytest.mark.parametrize("method", BEGINNINGS)
@pytest.mark.parametrize("is_packed", [False, True], ids=["plain", "packed"])
def test_over_grpc_who_may_not_ask_is_told_before_the_message_is_read(doors, method, is_packed):
    """One that cannot be read, packed or not, as who has read it would say."""
    message = BEGINNINGS[method].SerializeToString() + UNREADABLE
    if is_packed:
        message = gzip.compress(message + bytes(1 << 16))[:-1]
    address = doors[0]["grpc"]
    assert code_of(address, method, message, "other") is grpc.StatusCode.PERMISSION_DENIED
    assert code_of(address, method, message, "good") is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_the_model_that_counts_is_the_one_that_is_asked(doors, pack):
    """Wherever in the message it is named, and whatever else is."""
    pair, affine = (
        PredictRequest(model_spec=ModelSpec(name=name)).SerializeToString()
        for name in ("pair", "affine")
    )
    inputs = PredictRequest(inputs={"x": encode_tensor(np.float32([1, 2]))}).SerializeToString()
    method, address = f"{PREDICTION_SERVICE}/Predict", doors[0]["grpc"]
    for message in (affine + inputs, inputs + affine, pair + inputs + affine):
        message = pack(message)
        assert code_of(address, method, message, "other") is grpc.StatusCode.PERMISSION_DENIED
    assert code_of(address, method, pack(inputs + affine), "good") is grpc.StatusCode.OK
    # The first one that is named is looked at before anything else is.
    denied = code_of(address, method, pack(pair + inputs + affine), "good")
    assert denied is grpc.StatusCode.PERMISSION_DENIED


def test_a_task_about_another_model_is_not_passed_on_with_one_that_the_key_is_for(doors):
    request = MultiInferenceRequest()
    for model in ("pair", "affine"):
        request.tasks.add().model_spec.name = model
    with grpc.insecure_channel(doors[0]["grpc"]) as channel:
        call = PredictionServiceStub(channel).MultiInference.future(
            request, metadata=[("x-api-key", KEYS["other"])], timeout=30
        )
        assert call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "must access the same model name" in call.details()


@pytest.mark.parametrize("method", ["Predict", "Classify", "MultiInference", "GetModelMetadata"])
def test_a_message_that_names_no_model_is_not_passed_on_for_a_key_that_is_for_some(doors, method):
    def code(key):
        call = channel.unary_unary(f"/tensorflow.serving.PredictionService/{method}")
        return call.future(b"", metadata=[("x-api-key", KEYS[key])], timeout=30).code()

    with grpc.insecure_channel(doors[0]["grpc"]) as channel:
        assert code("good") is grpc.StatusCode.PERMISSION_DENIED
        if method == "GetModelMetadata":
            assert code("reader") is grpc.StatusCode.INVALID_ARGUMENT, "which is for all"


@pytest.mark.parametrize("way", ["front", "wsgi"])
def test_what_tells_of_models_tells_of_those_that_the_key_is_for(doors, way):
    def get(path, **headers):
        return requests.get(
            doors[0][way] + path, headers=bearer(KEYS["good"]) | headers, timeout=30
        )

    listed = get("/v1/models").json()["models"]
    assert [each["name"] for each in listed] == ["affine"]
    assert {each["name"] for each in get("/v2/repository/index").json()} == {"affine"}
    assert {each["name"] for each in get("/v2/models/stats").json()["model_stats"]} == {"affine"}
    assert not re.search("pair|echo", get("/openapi.json").text + get("/models/").text)
    assert not re.search("pair|echo", get("/v1/models/affinity/metadata").json()["error"])
    assert get("/models/pair").status_code == get("/docs/pair").status_code == 403
    assert get("/metrics").status_code == 403
    assert get("/models/affine").status_code == 200


@pytest.mark.parametrize("way", ["front", "wsgi"])
def test_what_is_open_without_a_key(doors, way):
    def status(path, **headers):
        return requests.get(doors[0][way] + path, headers=headers, timeout=30).status_code

    for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/"):
        eventually(lambda path=path: status(path) in (200, 302))
    ready = {"status": "ready", "reason": "all are AVAILABLE", "models": {}}
    eventually(lambda: requests.get(f"{doors[0][way]}/readyz", timeout=30).json() == ready)
    for path in ("/v1/models", "/v2", "/openapi.json", "/docs", "/models/", "/metrics"):
        assert status(path) == 401


def test_a_browser_is_asked_for_a_key_and_sends_it_as_a_cookie(doors):
    url = doors[0]["front"]
    asked = requests.get(f"{url}/models/", headers={"Accept": "text/html"}, timeout=30)
    assert asked.status_code == 401
    assert 'type="password"' in asked.text and "script-src 'self'" in str(asked.headers)
    script = re.search(r'src="(/static/\w+/key\.js)"', asked.text)[1]
    assert requests.get(url + script, timeout=30).status_code == 200
    cookie = {"sluice_key": KEYS["good"], "someone": 'else"s=odd one'}
    assert requests.get(f"{url}/models/", cookies=cookie, timeout=30).status_code == 200


@pytest.fixture
def one_gateway(launch_gateway, modelserver, tmp_path):
    """A gateway, and the file of the one key that it knows."""
    path = tmp_path / "access.toml"
    write(path, FILE)
    return launch_gateway(modelserver.address, access_file=path), path


def readings(gateway):
    """How often its workers have read the file anew."""
    return gateway.log.count("has changed, and is in force")


def write(path: Path, text: str) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.replace(path)


def predict(url, key):
    return HTTP["json"](url, "affine", bearer(key)).status


def eventually(condition, within_s=30):
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_file_is_read_again_and_a_bad_edit_changes_nothing(one_gateway):
    gateway, path = one_gateway
    added = new_key("added")
    text = f'{FILE}\n[keys.added]\nsha256 = "{digest_of(added)}"\nmodels = ["affine"]\n'
    write(path, text)
    eventually(lambda: predict(gateway.url, added) == 200)

    write(path, text.replace("models", "modles"))
    gateway.wait_for("did you mean models")
    assert predict(gateway.url, added) == predict(gateway.url, KEYS["good"]) == 200
    reason = requests.get(f"{gateway.url}/readyz", timeout=30).json()["reason"]
    assert "the file of keys cannot be used" in reason
    reader = bearer(KEYS["reader"])
    told = "\nsluice_access_problem 1.0\n"
    eventually(
        lambda: told in requests.get(f"{gateway.url}/metrics", headers=reader, timeout=30).text
    )
    everything = f'{text}\n[anonymous]\nmodels = ["*"]\n'
    write(path, everything)
    eventually(lambda: HTTP["json"](gateway.url, "affine", {}).status == 200)
    write(path, FILE)
    eventually(lambda: predict(gateway.url, added) == 401)
    assert predict(gateway.url, KEYS["good"]) == 200


@pytest.mark.parametrize(
    ("workers", "times"), [(1, 3), pytest.param(4, 100, marks=pytest.mark.slow)]
)
def test_reading_it_again_under_load_answers_nobody_wrongly(
    launch_gateway, modelserver, tmp_path, workers, times
):
    """The key that is in every version of the file is let in, and the one that is in none is not,
    whatever is being read. Each worker looks once a second, at a time of its own."""
    path = tmp_path / "access.toml"
    write(path, FILE)
    gateway = launch_gateway(modelserver.address, access_file=path, workers=workers)
    done = threading.Event()
    wrong = []

    def ask(key, expected):
        session = requests.Session()
        while not done.wait(0.005):
            status = session.post(
                f"{gateway.url}/v1/models/affine:predict",
                data='{"instances": [1.0]}',
                headers=bearer(key),
                timeout=30,
            ).status_code
            if status != expected:
                wrong.append((key, status))

    clients = [
        threading.Thread(target=ask, args=(key, expected))
        for key, expected in ((KEYS["good"], 200), (WRONG, 401)) * 2
    ]
    for client in clients:
        client.start()
    while (read := readings(gateway)) < times:
        name = f"added-{read}"
        added = new_key(name)
        text = f'[keys.{name}]\nsha256 = "{digest_of(added)}"\nmodels = ["affine"]\n'
        write(path, FILE + text)
        eventually(lambda before=read: readings(gateway) > before)
        eventually(lambda key=added: predict(gateway.url, key) == 200)
    done.set()
    for client in clients:
        client.join()
    assert not wrong

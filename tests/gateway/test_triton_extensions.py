"""What Triton adds to the Open Inference Protocol: a time-out of the body's own, the repository
index, statistics."""

import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
import requests
from google.protobuf import json_format

from sluice.wire.protos import inference_pb2 as inference
from sluice.wire.protos.inference_pb2_grpc import GRPCInferenceServiceStub

IN_TIME = "No answer within 2.5 s"
X = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}


@pytest.fixture(scope="module")
def slow_gateway(launch_gateway, slow_server, way):
    return launch_gateway(slow_server[1], way, request_timeout_s=20)


def infer(url, model="slow", **document):
    return requests.post(
        f"{url}/v2/models/{model}/infer", json={"inputs": [X], **document}, timeout=30
    )


def test_the_bodys_own_timeout_is_the_deadline_of_the_call(slow_gateway, slow):
    began = time.monotonic()
    reply = infer(slow_gateway.url, parameters={"timeout": 2_500_000})
    assert reply.status_code == 504
    assert IN_TIME in reply.json()["error"]
    assert 2.5 <= time.monotonic() - began < 20
    ((_, left_s),) = slow[0].contexts
    assert 0 < left_s < 3  # gRPC rounds it up
    assert slow[0].cancelled.wait(10)


@pytest.mark.parametrize("timeout", [0, 10**15])
def test_none_and_a_longer_one_leave_the_gateways_own_limit(slow_gateway, slow, timeout):
    slow[0].go.set()
    reply = infer(slow_gateway.url, parameters={"timeout": timeout})
    assert reply.status_code == 200, reply.text
    ((_, left_s),) = slow[0].contexts
    assert 10 < left_s <= 21


@pytest.mark.parametrize("timeout", [-1, 1.5, True, "1000", None, 2**63, [1]])
def test_a_timeout_that_is_none(gateway, timeout):
    reply = infer(gateway.url, "affine", parameters={"timeout": timeout})
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"].startswith("/parameters/timeout: expected microseconds")


def over_grpc(channel, model, **parameter):
    request = inference.ModelInferRequest(model_name=model)
    request.parameters["timeout"].MergeFrom(inference.InferParameter(**parameter))
    request.inputs.add(name="x", datatype="FP32", shape=[1]).contents.fp32_contents.append(1)
    return GRPCInferenceServiceStub(channel).ModelInfer.future(request, timeout=30)


@pytest.mark.parametrize("field", ["int64_param", "uint64_param"])
def test_grpcs_parameter_is_the_deadline_too(launch_grpc_gateway, slow, field):
    _, address = launch_grpc_gateway(slow[1], request_timeout_s=20)
    with grpc.insecure_channel(address) as channel:
        call = over_grpc(channel, "slow", **{field: 2_500_000})
        assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert IN_TIME in call.details()
        ((_, left_s),) = slow[0].contexts
        assert 0 < left_s < 3  # gRPC rounds it up
        slow[0].go.set()
        assert over_grpc(channel, "slow", **{field: 0}).code() is grpc.StatusCode.OK


@pytest.mark.parametrize(
    "parameter",
    [{"int64_param": -1}, {"string_param": "1000"}, {"bool_param": True}, {"double_param": 1e6}],
    ids=str,
)
def test_a_grpc_timeout_that_is_none(channel, parameter):
    call = over_grpc(channel, "affine", **parameter)
    assert call.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert call.details().startswith("/parameters/timeout: expected microseconds")


INDEX = [
    {"name": "affine", "version": "2", "state": "READY", "reason": ""},
    {"name": "affine", "version": "1", "state": "READY", "reason": ""},
    {"name": "pair", "version": "1", "state": "READY", "reason": ""},
]
MISSING = {"name": "nope", "version": "", "state": "UNAVAILABLE"}


@pytest.fixture(scope="module")
def listing(launch_gateway, modelserver, way):
    return launch_gateway(modelserver.address, way, models="affine,pair,nope").url


@pytest.mark.parametrize("body", [None, b"", {}, {"ready": False}], ids=str)
def test_the_index_lists_every_version_of_every_named_model(listing, body):
    sent = {"json": body} if isinstance(body, dict) else {"data": body}
    reply = requests.post(f"{listing}/v2/repository/index", timeout=30, **sent)
    *entries, missing = reply.json()
    assert entries == INDEX
    assert missing == MISSING | {"reason": "the model server has no such model"}


def test_the_index_is_got_as_well_and_lists_what_is_ready_alone_where_asked(listing):
    url = f"{listing}/v2/repository/index"
    assert len(requests.get(url, timeout=30).json()) == 4
    assert requests.post(url, json={"ready": True}, timeout=30).json() == INDEX


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"ready": 1}', b"\xff"])
def test_an_index_request_that_is_none(listing, body):
    reply = requests.post(f"{listing}/v2/repository/index", data=body, timeout=30)
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]


def test_the_models_are_listed_with_their_states(listing):
    available = {"state": "AVAILABLE"}
    assert requests.get(f"{listing}/v1/models", timeout=30).json() == {
        "models": [
            {
                "name": "affine",
                "versions": [{"version": "2", **available}, {"version": "1", **available}],
            },
            {"name": "pair", "versions": [{"version": "1", **available}]},
            {"name": "nope", "versions": []},
        ]
    }


def test_a_listing_without_a_model_server_says_so(launch_gateway, way):
    url = launch_gateway("127.0.0.1:1", way, models="affine").url
    listings = ("/v1/models", "/v2/repository/index", "/v2/models/affine/stats", "/v2/models/stats")
    for path in listings:
        reply = requests.get(url + path, timeout=30)
        assert reply.status_code == 503, path
        assert "not available" in reply.json()["error"]


@pytest.fixture
def counted(launch_gateway, modelserver, way):
    """The URL of a gateway that has answered nothing yet. Two workers, where it has a front: each
    answers for both."""
    return launch_gateway(modelserver.address, way, models="affine", workers=2).url


def stats(url, path):
    reply = requests.get(f"{url}/v2/models/{path}/stats", timeout=30)
    assert reply.status_code == 200, reply.text
    return {each["version"]: each for each in reply.json()["model_stats"]}


def outcomes(found):
    return sum(found["inference_stats"][each]["count"] for each in ("success", "fail"))


def inferred(found):
    return sum(each["inference_count"] for each in found.values())


def test_statistics_count_what_was_asked(counted):
    nothing = stats(counted, "affine")
    assert list(nothing) == ["2", "1"]
    assert nothing["2"]["inference_count"] == nothing["2"]["execution_count"] == 0

    def ask(index):
        rows = index % 3 + 1
        path = "affine/versions/1" if index % 4 == 0 else "affine"
        tensor = X | {"shape": [rows], "data": [1.0] * rows}
        if index % 2:
            return requests.post(
                f"{counted}/v1/models/{path}:predict", json={"instances": [1.0] * rows}, timeout=30
            )
        return requests.post(
            f"{counted}/v2/models/{path}/infer", json={"inputs": [tensor]}, timeout=30
        )

    with ThreadPoolExecutor(8) as pool:
        assert {each.status_code for each in pool.map(ask, range(40))} == {200}
    for wrong in ([], [[1]], "x"):
        url = f"{counted}/v1/models/affine:predict"
        assert requests.post(url, json={"inputs": wrong}, timeout=30).status_code == 400
    requests.get(f"{counted}/v1/models/affine/metadata", timeout=30)

    rows = {"1": 0, "2": 0}
    for index in range(40):
        rows["1" if index % 4 == 0 else "2"] += index % 3 + 1
    deadline, last = time.monotonic() + 30, None
    while True:  # each worker writes its numbers down ten times a second, one after another
        found = stats(counted, "affine")
        answered = sum(outcomes(each) for each in found.values())
        if (answered, inferred(found)) == (43, sum(rows.values())) and found == last:
            break
        assert time.monotonic() < deadline, found
        last = found
        time.sleep(0.2)
    for version, requests_ in (("1", 10), ("2", 30)):
        one = found[version]
        assert one["name"] == "affine"
        assert one["inference_count"] == rows[version]
        assert 1 <= one["execution_count"] <= requests_
        steps = one["inference_stats"]
        assert steps["success"]["count"] == steps["compute_infer"]["count"] == requests_
        assert steps["success"]["ns"] > steps["compute_infer"]["ns"] > 0
        assert steps["compute_input"]["ns"] > 0
        assert steps["fail"] == {"count": 0, "ns": 0}
    assert found[""]["inference_stats"]["fail"]["count"] == 3
    assert found[""]["inference_stats"]["fail"]["ns"] > 0
    assert found[""]["inference_count"] == 0
    assert list(stats(counted, "affine/versions/1")) == ["1", ""]
    assert stats(counted, "affine/versions/stable")["1"] == found["1"]


def test_statistics_of_all_the_named_models(listing):
    found = requests.get(f"{listing}/v2/models/stats", timeout=30).json()["model_stats"]
    assert [(each["name"], each["version"]) for each in found if each["version"]] == [
        (each["name"], each["version"]) for each in INDEX
    ]


def test_a_model_called_stats_is_asked_as_any_other_but_for_its_metadata(
    slow_gateway, slow, listing
):
    slow[0].go.set()
    assert infer(slow_gateway.url, "stats").json()["model_name"] == "stats"
    ready = requests.get(f"{slow_gateway.url}/v2/models/stats/ready", timeout=30)
    assert ready.json() == {"name": "stats", "ready": True}
    assert "model_stats" in requests.get(f"{listing}/v2/models/stats", timeout=30).json()
    none = requests.get(f"{listing}/v2/models/stats/versions/1", timeout=30)
    assert none.status_code == 404
    assert "stats" in none.json()["error"]


def test_grpc_lists_and_counts_as_http_does(launch_grpc_gateway, modelserver):
    gateway, address = launch_grpc_gateway(modelserver.address, models="affine,pair,nope")
    with grpc.insecure_channel(address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        for ready, entries in ((False, [*INDEX, MISSING]), (True, INDEX)):
            reply = stub.RepositoryIndex(inference.RepositoryIndexRequest(ready=ready), timeout=30)
            assert [plain(each) | {"reason": ""} for each in reply.models] == [
                each | {"reason": ""} for each in entries
            ]
        assert over_grpc(channel, "affine", int64_param=0).code() is grpc.StatusCode.OK
        for name, version, path in (
            ("", "", "stats"),
            ("affine", "", "affine/stats"),
            ("affine", "stable", "affine/versions/stable/stats"),
        ):
            request = inference.ModelStatisticsRequest(name=name, version=version)
            reply = stub.ModelStatistics(request, timeout=30)
            document = requests.get(f"{gateway.url}/v2/models/{path}", timeout=30).json()
            assert [plain(each) for each in reply.model_stats] == [
                plain(json_format.ParseDict(each, inference.ModelStatistics()))
                for each in document["model_stats"]
            ]
            assert version or max(each.inference_count for each in reply.model_stats) == 1
        for name, version, code in (
            ("nope", "", grpc.StatusCode.NOT_FOUND),
            ("affine", "unheard", grpc.StatusCode.INVALID_ARGUMENT),
        ):
            request = inference.ModelStatisticsRequest(name=name, version=version)
            assert stub.ModelStatistics.future(request, timeout=30).code() is code


def plain(message):
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


@pytest.mark.parametrize(
    ("path", "status"),
    [("nope", 404), ("affine/versions/9", 404), ("affine/versions/unheard", 400)],
)
def test_statistics_of_what_is_not_there(gateway, path, status):
    reply = requests.get(f"{gateway.url}/v2/models/{path}/stats", timeout=30)
    assert reply.status_code == status, reply.text
    assert reply.json()["error"]

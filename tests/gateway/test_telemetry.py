"""Metrics: what is counted, and that no client makes them grow."""

import re
import socket
import time

import grpc
import pytest
import requests

from service.gateway import version_series
from service.gateway.access_log import AccessLog
from service.gateway.caller import Caller
from service.gateway.exchange import Exchange
from service.gateway.telemetry import Telemetry
from sluice.wire.contract import State
from sluice.wire.protos.serving_pb2 import (
    GetModelMetadataRequest,
    GetModelStatusRequest,
    ModelSpec,
    ModelVersionStatus,
    PredictRequest,
)
from sluice.wire.protos.serving_pb2_grpc import ModelServiceStub, PredictionServiceStub
from tests.gateway.rollouts import eventually


@pytest.fixture
def counted(launch_gateway, modelserver, way):
    return launch_gateway(modelserver.address, way, models="affine").url


def samples(url):
    """{name and labels: value} of every sample."""
    text = requests.get(f"{url}/metrics", timeout=30).text
    return {
        name: float(value)
        for name, _, value in (
            line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")
        )
    }


def series(url):
    return {re.sub(r"_(created|total|bucket|sum|count)\b", "", name) for name in samples(url)}


INVENTED = [
    ("POST", "/v1/models/{}:predict"),
    ("GET", "/v1/models/{}"),
    ("GET", "/v1/models/affine/versions/{n}"),
    ("POST", "/v1/models/affine/labels/{}:predict"),
    ("POST", "/v2/models/{}/infer"),
    ("POST", "/v2/models/affine/versions/{}/infer"),
    ("GET", "/v2/models/{}/stats"),
    ("GET", "/docs/{}"),
    ("GET", "/{}"),
    ("GET", "/v1/{}"),
    ("{}", "/v2"),
    ("{}", "/v1/models/affine:predict"),
    ("POST", "/v1/models/affine:{}"),
]


def invent(url, round_):
    for index, (method, path) in enumerate(INVENTED):
        name = f"invented{round_}x{index}"
        requests.request(
            method.format(name.upper()),
            url + path.format(name, n=1000 + round_ * 100 + index),
            data=b'{"signature_name": "%s", "instances": [1]}' % name.encode(),
            headers={"X-Request-Id": name, "Content-Type": f"x/{name}"},
            timeout=30,
        )


def test_what_clients_invent_makes_no_metric(counted):
    requests.post(f"{counted}/v1/models/affine:predict", json={"instances": [1]}, timeout=30)
    invent(counted, 0)
    before = series(counted)
    for round_ in range(1, 5):
        invent(counted, round_)
    assert series(counted) == before
    text = requests.get(f"{counted}/metrics", timeout=30).text
    assert "invented" not in text.lower()


def test_nor_do_they_over_grpc(launch_grpc_gateway, modelserver):
    gateway, address = launch_grpc_gateway(modelserver.address)

    def invent_calls(round_):
        with grpc.insecure_channel(address) as channel:
            for index in range(5):
                name = f"invented{round_}x{index}"
                request = PredictRequest(model_spec=ModelSpec(name=name))
                PredictionServiceStub(channel).Predict.future(request, timeout=30).exception()
                request.model_spec.name, request.model_spec.signature_name = "affine", name
                PredictionServiceStub(channel).Predict.future(request, timeout=30).exception()
                channel.unary_unary(f"/{name}/{name}").future(b"", timeout=30).exception()

    invent_calls(0)
    before = series(gateway.url)
    invent_calls(1)
    assert series(gateway.url) == before
    assert not any("invented" in name for name in before)


def test_a_prediction_is_counted_once_and_timed(counted):
    for _ in range(3):
        requests.post(f"{counted}/v1/models/affine:predict", json={"instances": [1, 2]}, timeout=30)
    refused = requests.post(f"{counted}/v1/models/affine:predict", data=b"{", timeout=30)
    assert refused.status_code == 400
    found = samples(counted)
    labels = 'dialect="tfs",model="affine"'
    answered = f'{labels},signature="serving_default",status="200",verb="predict",version="2"'
    assert found[f"sluice_requests_total{{{answered}}}"] == 3
    bad = [
        value
        for name, value in found.items()
        if name.startswith("sluice_requests_total") and 'status="400"' in name
    ]
    assert bad == [1]
    versioned = 'model="affine",version="2"'
    assert found[f'sluice_request_seconds_count{{dialect="tfs",{versioned}}}'] == 3
    for step in ("queued", "upstream", "decode"):
        assert found[f"sluice_{step}_seconds_count{{{versioned}}}"] == 3
    assert found[f"sluice_joined_rows_sum{{{versioned}}}"] == 6
    assert found[f"sluice_rows_total{{{versioned}}}"] == 6
    assert found[f"sluice_calls_total{{{versioned}}}"] == pytest.approx(3)
    assert found['sluice_request_bytes_count{dialect="tfs"}'] == 4


def status_over_grpc(_, address):
    with grpc.insecure_channel(address) as channel:
        request = GetModelStatusRequest(model_spec=ModelSpec(name="affine"))
        ModelServiceStub(channel).GetModelStatus(request, timeout=30)


def metadata_over_grpc(_, address):
    with grpc.insecure_channel(address) as channel:
        spec, fields = ModelSpec(name="affine"), ["signature_def"]
        request = GetModelMetadataRequest(model_spec=spec, metadata_field=fields)
        PredictionServiceStub(channel).GetModelMetadata(request, timeout=30)


def status_over_http(url, _):
    assert requests.get(f"{url}/v1/models/affine", timeout=30).status_code == 200


@pytest.mark.parametrize("ask", [status_over_grpc, metadata_over_grpc, status_over_http])
def test_what_a_model_answers_is_counted_by_its_name_before_it_has_predicted(
    launch_grpc_gateway, modelserver, ask
):
    gateway, address = launch_grpc_gateway(modelserver.address)
    ask(gateway.url, address)
    found = [name for name in samples(gateway.url) if name.startswith("sluice_requests_total{")]
    assert [re.findall('model="(.*?)"', name) for name in found] == [["affine"]]


def test_a_refusal_says_why_it_was(launch_gateway, modelserver, way):
    url = launch_gateway(modelserver.address, way, max_body_bytes=100).url
    reply = requests.post(f"{url}/v1/models/affine:predict", data=b"x" * 200, timeout=30)
    assert reply.status_code == 413
    assert samples(url)['sluice_refused_total{reason="PayloadTooLarge"}'] == 1


def test_what_is_in_flight_is_seen(launch_gateway, slow):
    url = launch_gateway(slow[1]).url
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 30) as client:
        head = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 18\r\n\r\n"
        client.sendall(head + b'{"instances": [1]}')
        assert slow[0].arrived.wait(30)
    deadline = time.monotonic() + 30
    while samples(url)["sluice_requests_in_flight"] != 0:
        assert time.monotonic() < deadline, "a caller that hung up is still counted"
    assert samples(url)["sluice_connections"] >= 0


def test_an_unknown_models_name_is_no_label():
    telemetry = Telemetry(AccessLog("off"))
    exchange = Exchange("tfs", "predict", "", "404", "POST", "/", "c", "i", 0, 0, 0.1)
    caller = Caller.within(1)
    caller.signature = "whatever a client says"
    telemetry.observe(exchange, caller)
    body, _ = telemetry.exposition()
    assert b"whatever" not in body


def test_the_state_of_each_version_of_a_named_model_is_told(counted):
    of_states = "sluice_model_version_state"
    found = eventually(lambda: {name for name in samples(counted) if name.startswith(of_states)})
    assert found == {
        f'sluice_model_version_state{{model="affine",state="AVAILABLE",version="{version}"}}'
        for version in (1, 2)
    }


def test_a_version_that_did_not_load_is_failed_until_it_is_heard_of_no_more():
    telemetry = Telemetry(AccessLog("off"))
    broken = ModelVersionStatus(version=3, state=State.END)
    broken.status.error_code = 3
    ended = ModelVersionStatus(version=2, state=State.END)
    telemetry.version_states.hear("m", [broken, ended])
    told = telemetry.exposition()[0].decode()
    assert 'sluice_model_version_state{model="m",state="FAILED",version="3"} 1.0' in told
    assert 'sluice_model_version_state{model="m",state="END",version="2"} 1.0' in told
    telemetry.version_states.hear("m", [])
    assert "sluice_model_version_state{" not in telemetry.exposition()[0].decode()


def test_files_that_other_workers_have_only_just_made_are_passed_over(tmp_path, monkeypatch):
    monkeypatch.setenv(version_series.MULTIPROCESS_DIR, str(tmp_path))
    telemetry = Telemetry(AccessLog("off"))
    exchange = Exchange("tfs", "predict", "m", "200", "POST", "/", "-", "id", 9, 7, 0.1)
    telemetry.observe(exchange, Caller(0, signature="s", version=1, rows=3, joined=3))
    (tmp_path / "counter_1_1.db").touch()
    assert "\nsluice_rows_total{" in telemetry.exposition()[0].decode()
    (tmp_path / "counter_1_2.db").symlink_to("nowhere")
    with pytest.raises(FileNotFoundError):  # nobody is told less than what has been counted
        telemetry.exposition()


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "with other workers"])
def test_versions_that_answered_long_ago_are_let_go(shared, tmp_path, monkeypatch):
    """And no other's numbers with them; as files, where workers share them."""
    monkeypatch.setattr(version_series, "QUIET_S", 0.0)
    if shared:
        monkeypatch.setenv(version_series.MULTIPROCESS_DIR, str(tmp_path))
    telemetry, most = Telemetry(AccessLog("off")), version_series.MOST_VERSIONS
    answered = [*range(1, most + 3), 2]  # the second comes again
    for version in answered:
        exchange = Exchange("tfs", "predict", "m", "200", "POST", "/", "-", "id", 9, 7, 0.1)
        caller = Caller(0, signature="s", version=version, rows=3, joined=3)
        telemetry.observe(exchange, caller)
    kept = {str(version) for version in answered[-most:]}
    text = telemetry.exposition()[0].decode()
    for name, value in (("requests_total", 1), ("rows_total", 3), ("request_seconds_count", 1)):
        found = re.findall(rf'^sluice_{name}{{.*version="(\d+)".*}} (.*)$', text, re.M)
        assert {version: float(number) for version, number in found} == dict.fromkeys(kept, value)
    assert telemetry.statistics()["m"].keys() == kept
    assert len(list(tmp_path.glob("*.db"))) == (2 * most if shared else 0)
    for version in kept:
        version_series.Versions.let_go("m", version, [])
    assert not list(tmp_path.glob("*.db"))

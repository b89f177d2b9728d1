"""The access log: one line a request, whatever a client sends."""

import asyncio
import json
import os
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
import requests

from service.gateway.access_log import AccessLog
from service.gateway.caller import Caller
from service.gateway.exchange import Exchange
from service.gateway.telemetry import Telemetry
from sluice.wire.protos.serving_pb2 import ModelSpec, PredictRequest, RegressionRequest
from sluice.wire.protos.serving_pb2_grpc import PredictionServiceStub

PLAIN = Exchange(
    "tfs", "predict", "m", "200", "POST", "/v1/models/m:predict", "10.0.0.1", "id-1", 9, 7, 0.0123
)
HOSTILE = 'a b\n2026-01-01T00:00:00Z forged\r\x1b[31m\x9b\x7f\u0085é\u2028\u202e\u2067"\\'


@pytest.fixture
def written(monkeypatch, tmp_path):
    """`written(form, *exchanges)` -> what is on standard error then."""
    path = tmp_path / "stderr"

    def write(form, *exchanges, caller=None):
        with path.open("w", encoding="utf-8") as file:
            monkeypatch.setattr(sys, "stderr", file)
            AccessLog(form).write([(each, caller or Caller.within(1)) for each in exchanges])
        return path.read_bytes().decode()

    return write


def test_a_line_of_text_has_what_is_known(written):
    caller = Caller(0, signature="s", version=3, rows=2, joined=8, queued_s=0.001, upstream_s=0.01)
    line = written("text", PLAIN, caller=caller)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ 10\.0\.0\.1 id-1 POST /v1/models/m:predict 200 12\.3ms "
        r"dialect=tfs model=m version=3 signature=s rows=2 joined=8 in=9 out=7 decode=0\.0ms "
        r"queued=1\.0ms upstream=10\.0ms\n",
        line,
    )


def test_a_line_of_json_has_the_same(written):
    caller = Caller(0, signature="s", version=3, rows=2, joined=8, queued_s=0.001)
    entry = json.loads(written("json", PLAIN._replace(reason="why"), caller=caller))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", entry.pop("time"))
    assert entry == {
        "client": "10.0.0.1",
        "id": "id-1",
        "method": "POST",
        "path": "/v1/models/m:predict",
        "status": "200",
        "dialect": "tfs",
        "model": "m",
        "version": 3,
        "signature": "s",
        "rows": 2,
        "joined_rows": 8,
        "bytes_in": 9,
        "bytes_out": 7,
        "seconds": 0.0123,
        "decode_s": 0.0,
        "queued_s": 0.001,
        "upstream_s": 0.0,
        "reason": "why",
    }


def test_off_is_off(written):
    assert written("off", PLAIN) == ""


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("place", ["path", "request_id", "reason", "method"])
def test_what_clients_send_stays_on_its_line_and_talks_to_no_terminal(written, form, place):
    exchange = PLAIN._replace(**{place: HOSTILE})
    text = written(form, exchange, PLAIN)
    assert len(text.splitlines()) == 2
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202e\u2067]", text)
    first = text.split("\n")[0]
    if form == "json":
        key = "id" if place == "request_id" else place
        assert json.loads(first)[key] == HOSTILE
    else:
        assert r"\x0a2026-01-01" in first
        words = first.split(" ")
        if place in ("path", "request_id"):
            assert (words[1], words[5]) == ("10.0.0.1", "200"), "one word for each"


@pytest.mark.parametrize("form", ["text", "json"])
def test_half_a_character_is_no_reason_to_fail(written, form):
    text = written(form, PLAIN._replace(path="/v1/\udcff"), PLAIN)
    assert text.count("\n") == 2
    assert "/v1/" in text


def test_threads_lose_no_line(monkeypatch, tmp_path):
    path = tmp_path / "stderr"
    telemetry = Telemetry(AccessLog("text"))
    with path.open("a") as file, ThreadPoolExecutor(8) as pool:
        monkeypatch.setattr(sys, "stderr", file)
        list(pool.map(lambda _: telemetry.observe(PLAIN, Caller.within(1)), range(2000)))
    lines = path.read_text().splitlines()
    assert len(lines) == 2000
    assert len({line.partition(" ")[2] for line in lines}) == 1, "no line is torn"


def test_in_an_event_loop_lines_are_written_together_and_soon(monkeypatch, tmp_path):
    path = tmp_path / "stderr"

    async def observe(telemetry):
        for _ in range(10):
            telemetry.observe(PLAIN, Caller.within(1))
        before = path.read_text()
        while path.read_text().count("\n") < 10:
            await asyncio.sleep(0.01)
        return before

    with path.open("a") as file:
        monkeypatch.setattr(sys, "stderr", file)
        before = asyncio.run(asyncio.wait_for(observe(Telemetry(AccessLog("text"))), 30))
    assert before == ""


def lines_of(gateway, count):
    """The access log's JSON lines, once there are so many."""
    deadline = time.monotonic() + 30
    while True:
        found = [json.loads(line) for line in gateway.log.splitlines() if line.startswith('{"')]
        if len(found) >= count:
            return found
        assert time.monotonic() < deadline, gateway.log
        time.sleep(0.02)


def test_every_request_is_a_line(launch_gateway, modelserver, way):
    gateway = launch_gateway(modelserver.address, way, models="affine", access_log="json")
    url = f"{gateway.url}/v1/models"
    asked = [
        ("affine:predict", {"instances": [1, 2]}, 200, "affine", 2, None),
        ("affine:predict", {"instances": [[1]]}, 400, "affine", 0, "inputs.x: expected float32"),
        ("nope:predict", {"instances": [1]}, 404, "", 0, "nope"),
        ("affine/labels/stable:predict", {"instances": [1]}, 200, "affine", 1, None),
        ("affine:predict\n%1b[31m x", {"instances": [1]}, 400, "", 0, "Malformed request"),
    ]
    for index, (path, body, status, *_) in enumerate(asked):
        path = path.replace("\n", "%0a").replace(" ", "%20")
        reply = requests.post(
            f"{url}/{path}", json=body, headers={"X-Request-Id": f"id-{index}"}, timeout=30
        )
        assert reply.status_code == status, reply.text
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: requests.get(f"{url}/affine", timeout=30), range(40)))
    found = lines_of(gateway, len(asked) + 40)
    assert len(found) == len(asked) + 40
    for index, (path, body, status, model, rows, reason) in enumerate(asked[:4]):
        (line,) = [each for each in found if each["id"] == f"id-{index}"]
        assert line["path"] == f"/v1/models/{path}"
        assert (line["status"], line["model"], line["rows"]) == (str(status), model, rows)
        assert line["client"] == "127.0.0.1"
        assert line["bytes_in"] == len(json.dumps(body))
        assert line["bytes_out"] > 0
        assert line["seconds"] > 0
        if reason is None:
            assert "reason" not in line
            assert line["version"] == (1 if "stable" in path else 2)
            assert line["signature"] == "serving_default"
            assert line["upstream_s"] > 0
        else:
            assert reason in line["reason"]
    (page,) = [each for each in found if each["id"] == "id-4"]
    assert page["path"] == "/v1/models/affine:predict\n\x1b[31m x"
    assert (page["status"], page["dialect"]) == ("400", "page")
    assert page["reason"].startswith("Malformed request")


def test_probes_are_not_logged_and_grpc_is(launch_grpc_gateway, modelserver):
    gateway, address = launch_grpc_gateway(modelserver.address, access_log="json")
    for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/metrics"):
        requests.get(gateway.url + path, timeout=30)
    with grpc.insecure_channel(address) as channel:
        request = PredictRequest(model_spec=ModelSpec(name="nope"))
        call = PredictionServiceStub(channel).Predict.future(
            request, timeout=30, metadata=[("x-request-id", "grpc-1")]
        )
        assert call.code() is grpc.StatusCode.NOT_FOUND
        passed_on = RegressionRequest(model_spec=ModelSpec(name="affine", signature_name="regress"))
        passed_on.input.example_list.examples.add()
        PredictionServiceStub(channel).Regress(passed_on, timeout=30)
    line, other = lines_of(gateway, 2)
    assert (line["id"], line["status"], line["dialect"]) == ("grpc-1", "NOT_FOUND", "tfs-grpc")
    assert (line["method"], line["model"]) == ("GRPC", "")
    assert line["path"] == "/tensorflow.serving.PredictionService/Predict"
    assert "nope" in line["reason"]
    assert (other["status"], other["dialect"]) == ("OK", "tfs-grpc")
    assert 0 < other["upstream_s"] <= other["seconds"]


@pytest.mark.parametrize("end", ["a full disk", "a reader that has gone"])
def test_where_no_line_can_be_written_requests_are_counted_and_answered(monkeypatch, end):
    telemetry = Telemetry(AccessLog("text"))
    with unwritable(end) as file:
        monkeypatch.setattr(sys, "stderr", file)
        telemetry.observe(PLAIN, Caller.within(1))
        exposition, _ = telemetry.exposition()
    assert re.search(rb'sluice_requests_total{.*model="m".*} 1\.0', exposition)


def unwritable(end):
    if end == "a full disk":
        return Path("/dev/full").open("w", encoding="utf-8")
    read, write = os.pipe()
    os.close(read)
    return os.fdopen(write, "w", encoding="utf-8")

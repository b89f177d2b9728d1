"""Traces as a collector sees them: a real gateway and twin, and OTLP over gRPC."""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
import requests
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from service.gateway.settings import Settings
from service.gateway.tracing.tracers import check_tracing
from service.gateway.variables import InvalidSetting
from sluice.wire.contract import PREDICTION_SERVICE
from tests.gateway.access import GRPC

PREDICT = f"{PREDICTION_SERVICE}/Predict"
ROUTE = "/v1/models/<model:name>:predict"
PARENT = "00f067aa0ba902b7"
SAMPLED = 1  # of the flags in a traceparent
CLIENTS = 24


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """What has been exported so far, and by which services."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()

    def Export(self, request, _):  # noqa: N802
        for exported in request.resource_spans:
            named = {each.key: each.value.string_value for each in exported.resource.attributes}
            self.services.add(named["service.name"])
            for scope in exported.scope_spans:
                self.spans += scope.spans
        return trace_service_pb2.ExportTraceServiceResponse()

    def of(self, trace_id: str) -> dict[str, Span]:
        """The spans of a trace by name, once the request's own is there: the last that is sent."""
        wanted = bytes.fromhex(trace_id)
        self.wait_until(lambda: any(_is_server(each, wanted) for each in self.spans))
        return {each.name: each for each in self.spans if each.trace_id == wanted}

    def wait_until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, [each.name for each in self.spans]
            time.sleep(0.02)


def _is_server(span: Span, trace_id: bytes) -> bool:
    return span.trace_id == trace_id and span.kind == Span.SPAN_KIND_SERVER


@pytest.fixture(scope="module")
def collector() -> Iterator[tuple[Collector, dict[str, str]]]:
    """A collector, and the variables that have spans sent there."""
    collector, server = Collector(), grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_BSP_MAX_QUEUE_SIZE": "200000",  # what is over is dropped, where the collector lags
    }
    yield collector, variables
    server.stop(0).wait()


@pytest.fixture(scope="module")
def traced(collector, launch_grpc_gateway, modelserver):
    """A gateway before the twin, all of whose requests are traced; its gRPC address."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in collector[1].items():
            environment.setenv(name, value)
        return launch_grpc_gateway(
            modelserver.address,
            models="affine",
            tracing="on",
            access_log="json",
            metadata_ttl_s=3600,
        )


def trace_of(number: int) -> tuple[str, dict[str, str]]:
    """An id, and the header of a client that traces its request under it."""
    trace_id = f"4bf92f3577b34da6a3ce929d0e{number:06x}"
    return trace_id, {"traceparent": f"00-{trace_id}-{PARENT}-01"}


def predict(url: str, headers: dict[str, str], model: str = "affine") -> int:
    body = {"instances": [1.0]}
    return requests.post(
        f"{url}/v1/models/{model}:predict", json=body, headers=headers, timeout=60
    ).status_code


def attributes(span: Span) -> dict[str, object]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


def test_a_request_is_seen_whole(traced, collector, modelserver):
    gateway, _ = traced
    predict(gateway.url, {})  # after which the model's signatures are known
    trace_id, headers = trace_of(1)
    assert predict(gateway.url, headers | {"X-Request-Id": "whole"}) == 200
    spans = collector[0].of(trace_id)
    assert spans.keys() == {f"POST {ROUTE}", "admit", "decode", PREDICT, "encode"}
    server, call = spans[f"POST {ROUTE}"], spans[PREDICT]
    assert server.parent_span_id.hex() == PARENT
    steps = [spans[name] for name in ("admit", "decode", PREDICT, "encode")]
    assert {each.parent_span_id for each in steps} == {server.span_id}
    times = [server.start_time_unix_nano]
    for step in steps:
        times += step.start_time_unix_nano, step.end_time_unix_nano
    assert [*times, server.end_time_unix_nano] == sorted([*times, server.end_time_unix_nano])
    assert attributes(server) == {
        "http.request.method": "POST",
        "http.route": ROUTE,
        "url.scheme": "http",
        "url.path": "/v1/models/affine:predict",
        "client.address": "127.0.0.1",
        "http.response.status_code": 200,
        "sluice.dialect": "tfs",
        "sluice.request_id": "whole",
        "sluice.model": "affine",
        "sluice.version": 2,
        "sluice.signature": "serving_default",
        "sluice.rows": 1,
        "sluice.joined_rows": 1,
    }
    assert call.kind == Span.SPAN_KIND_CLIENT
    assert attributes(call) == {
        "rpc.system.name": "grpc",
        "rpc.method": PREDICT,
        "rpc.response.status_code": "OK",
        "server.address": "127.0.0.1",
        "server.port": modelserver.port,
    }
    assert collector[0].services == {"sluice-gateway"}
    gateway.wait_for(rf'"id":"whole".*"trace_id":"{trace_id}","span_id":"{server.span_id.hex()}"')


def test_over_grpc_it_is_the_same(traced, collector):
    trace_id, headers = trace_of(2)
    assert GRPC["predict"](traced[1], "affine", headers).status == 200
    collector[0].of(trace_id)
    spans = [each for each in collector[0].spans if each.trace_id.hex() == trace_id]
    (server,) = [each for each in spans if each.kind == Span.SPAN_KIND_SERVER]
    assert (server.name, server.parent_span_id.hex()) == (PREDICT, PARENT)
    assert attributes(server)["rpc.response.status_code"] == "OK"
    below = [each.name for each in spans if each.parent_span_id == server.span_id]
    assert sorted(below) == sorted(["admit", "decode", PREDICT, "encode"])


def test_nothing_secret_is_in_a_trace(traced, collector):
    secret = "a-secret-of-mine"
    shown = {"Authorization": f"Bearer {secret}", "X-API-Key": secret, "Cookie": f"x={secret}"}
    shown["baggage"] = f"key={secret}"
    asked = ("", 1.0, 200), ("", secret, 400), (f"?key={secret}", 1.0, 400)
    for number, (query, row, status) in enumerate(asked, 8):
        trace_id, headers = trace_of(number)
        reply = requests.post(
            f"{traced[0].url}/v1/models/affine:predict{query}",
            json={"instances": [row]},
            headers=headers | shown,
            timeout=60,
        )
        assert reply.status_code == status
        spans = collector[0].of(trace_id).values()
        assert not [each for each in spans if secret.encode() in each.SerializeToString()]


def test_half_a_character_costs_no_spans(traced, collector):
    trace_id, headers = trace_of(7)
    url = f"{traced[0].url}/v1/models/%ed%a0%80:predict"
    assert requests.post(url, json={"instances": [1.0]}, headers=headers, timeout=60).status_code
    assert attributes(collector[0].of(trace_id)[f"POST {ROUTE}"])["url.path"]


def test_a_refusal_ends_where_it_was_refused(traced, collector):
    trace_id, headers = trace_of(3)
    assert predict(traced[0].url, headers, "nothing") == 404
    spans = collector[0].of(trace_id)
    server = spans[f"POST {ROUTE}"]
    assert attributes(server)["http.response.status_code"] == 404
    assert "sluice.model" not in attributes(server)  # a client's invention
    assert server.status.code == Status.STATUS_CODE_UNSET
    asked = spans[f"{PREDICTION_SERVICE}/GetModelMetadata"]
    assert asked.status.code == Status.STATUS_CODE_ERROR
    assert attributes(asked)["error.type"] == "NOT_FOUND"
    assert "encode" not in spans


def test_requests_that_are_joined_are_linked_with_their_call(traced, collector):
    numbers = iter(range(1000, 1_000_000))
    asking = threading.Event()

    def ask(_: int) -> None:
        with requests.Session() as session:
            while not asking.is_set():
                headers = trace_of(next(numbers))[1]
                body = {"instances": [1.0]}
                session.post(
                    f"{traced[0].url}/v1/models/affine:predict",
                    json=body,
                    headers=headers,
                    timeout=60,
                )

    def joined_calls() -> list[Span]:
        calls = [each for each in list(collector[0].spans) if each.kind == Span.SPAN_KIND_CLIENT]
        return [each for each in calls if each.links]

    with ThreadPoolExecutor(CLIENTS) as pool:
        asked = [pool.submit(ask, number) for number in range(CLIENTS)]
        try:
            collector[0].wait_until(joined_calls)
        finally:
            asking.set()
    assert [each.result() for each in asked] == [None] * CLIENTS
    call = joined_calls()[0]
    first = collector[0].of(call.trace_id.hex())[f"POST {ROUTE}"]
    assert call.parent_span_id == first.span_id
    for link in call.links:
        spans = collector[0].of(link.trace_id.hex())
        server = spans[f"POST {ROUTE}"]
        assert server.span_id == link.span_id
        assert (call.trace_id, call.span_id) in [
            (each.trace_id, each.span_id) for each in server.links
        ]
        assert attributes(server)["sluice.joined_rows"] == 1 + len(call.links)
        assert PREDICT not in spans
        assert spans["queue"].parent_span_id == server.span_id


@pytest.fixture(scope="module")
def sampled(collector, launch_gateway, slow_server):
    """A gateway that traces what its clients trace, and nothing else."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in collector[1].items():
            environment.setenv(name, value)
        environment.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
        environment.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
        environment.setenv("OTEL_SERVICE_NAME", "another")
        return launch_gateway(slow_server[1], tracing="on")


def test_the_trace_goes_on_to_the_model_server(sampled, collector, slow):
    service, _ = slow
    service.go.set()
    trace_id, headers = trace_of(4)
    headers["tracestate"] = "vendor=1"
    assert predict(sampled.url, headers) == 200
    call = collector[0].of(trace_id)[PREDICT]
    passed_on, _ = service.contexts[-1]
    assert passed_on["traceparent"] == f"00-{trace_id}-{call.span_id.hex()}-01"
    assert passed_on["tracestate"] == "vendor=1"
    assert "another" in collector[0].services


def test_the_sampler_of_the_environment_decides(sampled, collector, slow):
    service, _ = slow
    service.go.set()
    assert predict(sampled.url, {"X-Request-Id": "not-sampled"}) == 200
    passed_on = service.contexts[-1][0]["traceparent"]
    found = re.fullmatch(r"00-(\w{32})-(\w{16})-(\w\w)", passed_on)
    assert not int(found[3], 16) & SAMPLED, passed_on
    sampled.wait_for(rf" not-sampled .* trace_id={found[1]} span_id=\w{{16}}\n")
    trace_id, headers = trace_of(5)
    assert predict(sampled.url, headers) == 200
    collector[0].of(trace_id)  # was sent after it
    assert found[1] not in {each.trace_id.hex() for each in collector[0].spans}


def test_what_a_model_server_fails_with_is_in_both_spans(sampled, collector, slow):
    service, _ = slow
    service.refusal = grpc.StatusCode.INTERNAL
    trace_id, headers = trace_of(6)
    assert predict(sampled.url, headers) == 500
    spans = collector[0].of(trace_id)
    for name, kind in ((f"POST {ROUTE}", "500"), (PREDICT, "INTERNAL")):
        assert spans[name].status.code == Status.STATUS_CODE_ERROR
        assert attributes(spans[name])["error.type"] == kind


OFF = """
import sys
sys.modules["opentelemetry"] = None  # as if it were not installed
import service.gateway.front.worker, service.gateway.rpc.server
from service.gateway.gateway import Gateway
from service.gateway.settings import Settings
from service.gateway.variables import InvalidSetting
Gateway.of(Settings())
try:
    Gateway.of(Settings(tracing="on"))
except InvalidSetting as error:
    print(error)
print([name for name in sys.modules if name.startswith("opentelemetry.")])
"""


def test_none_of_it_is_needed_or_loaded_where_it_is_off():
    run = [sys.executable, "-P", "-c", OFF]
    said = subprocess.run(run, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said == [
        "SLUICE_TRACING is on, and there is no module opentelemetry: "
        "pip install 'sluice[gateway,otel]'",
        "[]",
    ]


def test_a_protocol_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    check_tracing(Settings())
    with pytest.raises(InvalidSetting, match="OTEL_EXPORTER_OTLP_PROTOCOL: expected grpc, got 'ht"):
        check_tracing(Settings(tracing="on"))

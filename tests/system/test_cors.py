"""Pages of other sites: what a browser is told, over the front and plain WSGI alike."""

import json
import urllib.error
import urllib.request

import pytest

from service.gateway.caller import CACHE_CONTROL, REQUEST_ID
from service.gateway.gateway import CONTENT_ENCODING, TIMEOUT_MS, TIMING
from service.gateway.routing import VERSION
from service.gateway.settings import Settings
from service.gateway.variables import InvalidSetting
from sluice.wire.oip_tensors import JSON_LENGTH
from tests.conftest import WAYS

# What the gateway reads of a request that a page may send; a browser sends the rest by itself.
READ = {
    *("authorization", "x-api-key", "accept", "content-type", REQUEST_ID, CACHE_CONTROL, VERSION),
    *("traceparent", "tracestate", TIMEOUT_MS, CONTENT_ENCODING, TIMING, JSON_LENGTH.lower()),
}
# What a page may read of an answer without being let, or has no use for.
READ_ANYWAY = {
    *("content-type", "content-length", "cache-control", "server", "date", "vary", "connection"),
    *("access-control-allow-origin", "access-control-expose-headers"),
}
OURS, THEIRS = "https://app.example.org", "https://app.example.org.evil.example"
PREDICT = "/v1/models/m:predict"


@pytest.fixture(params=WAYS)
def ask(request, launch_toy, launch_gateway):
    """`ask(method, path, origin, body, **headers)` -> status and headers."""
    gateway = launch_gateway(
        launch_toy().address, request.param, cors_origins=f"{OURS}, http://localhost:3000"
    )

    def send(method, path, origin, body=None, **headers):
        given = {"Origin": origin, "Content-Type": "application/json"} | headers
        asked = urllib.request.Request(gateway.url + path, body, given, method=method)
        try:
            with urllib.request.urlopen(asked, timeout=60) as reply:
                return reply.status, reply.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers

    return send


def listed(headers, kind):
    return set(headers[f"Access-Control-{kind}-Headers"].lower().split(", "))


def test_pages_of_named_sites_may_ask_and_read_and_no_others(ask):
    body = json.dumps({"instances": [1.0]}).encode()
    asked = {"Access-Control-Request-Method": "POST"}
    for path, given, status in (
        (PREDICT, body, 200),
        (PREDICT, b"?", 400),
        ("/v1/models/m/labels/none:predict", body, 200),
        ("/openapi.json", None, 200),
    ):
        method = "POST" if given else "GET"
        answered, headers = ask(method, path, OURS, given, **{TIMING: "on"})
        assert answered == status
        assert headers["Access-Control-Allow-Origin"] == OURS
        assert headers["Vary"] == "Origin"
        assert {name.lower() for name in headers} - listed(headers, "Expose") <= READ_ANYWAY
        assert ask(method, path, THEIRS, given)[1]["Access-Control-Allow-Origin"] is None
    for path, methods in ((PREDICT, "POST"), ("/openapi.json", "GET, HEAD")):
        status, headers = ask("OPTIONS", path, OURS, **asked)
        assert (status, headers["Access-Control-Allow-Methods"]) == (204, methods)
        assert headers["Access-Control-Allow-Origin"] == OURS
        assert listed(headers, "Allow") >= READ
        assert "Access-Control-Allow-Credentials" not in headers
        status, headers = ask("OPTIONS", path, THEIRS, **asked)
        assert not [name for name in headers if name.startswith("Access-Control-")]
    for path in ("/nowhere", "/v1/nowhere"):
        status, headers = ask("OPTIONS", path, OURS, **asked)
        assert "Access-Control-Allow-Methods" not in headers


@pytest.mark.parametrize("text", ["https://a.example/", "a.example", "*", "https://A.example"])
def test_what_is_no_origin_is_refused(text):
    with pytest.raises(InvalidSetting, match=r"SLUICE_CORS_ORIGINS: expected SCHEME://HOST"):
        Settings.from_environment({"SLUICE_CORS_ORIGINS": text})

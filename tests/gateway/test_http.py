"""What HTTP/1.1 promises, byte by byte where it matters, and what we promise on top of it."""

import gzip
import json
import re
import socket
import time
import zlib
from contextlib import contextmanager

import grpc
import pytest
import requests

PREDICT = "/v1/models/affine:predict"
BODY = b'{"instances": [1.0, 2.0]}'
ANSWER = {"predictions": [3.5, 4.0]}
HEAD_TIMEOUT_S = 3


class Connection:
    """A socket to a gateway, and the answers that come on it."""

    def __init__(self, url):
        host, port = url.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        self.stream = self.socket.makefile("rb")

    def send(self, data):
        self.socket.sendall(data)

    def status_line(self):
        return self.stream.readline().decode().strip()

    def answer(self, with_body=True):
        """(status, headers, body) of the next one."""
        status = int(self.status_line().split()[1])
        headers = {}
        while line := self.stream.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        return status, headers, self.stream.read(int(headers["content-length"]) * with_body)

    def is_closed(self):
        """Whether the server closes it, having sent nothing more."""
        return self.stream.read() == b""


@contextmanager
def connected(url):
    connection = Connection(url)
    try:
        yield connection
    finally:
        connection.stream.close()
        connection.socket.close()


def request(method="POST", path=PREDICT, body=BODY, **headers):
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def chunked(*pieces, end=b"0\r\n\r\n"):
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + end


@pytest.fixture(scope="module")
def front(gateways):
    return gateways("front").url


@pytest.fixture
def connection(front):
    with connected(front) as connection:
        yield connection


def check(answer):
    assert (answer[0], json.loads(answer[2])) == (200, ANSWER)


def test_a_connection_is_kept(connection):
    for _ in range(3):
        connection.send(request())
        status, headers, body = connection.answer()
        assert (status, json.loads(body)) == (200, ANSWER)
        assert headers["server"] == "sluice"
        assert headers.get("connection", "keep-alive") == "keep-alive"


@pytest.mark.parametrize("head", [b"GET /healthz HTTP/1.0\r\n\r\n", request(Connection="close")])
def test_a_connection_is_closed_where_the_client_says_so(connection, head):
    connection.send(head)
    assert connection.answer()[0] == 200
    assert connection.is_closed()


def test_pipelined_requests_are_answered_in_their_order(connection):
    bodies = [b'{"instances": [%d]}' % index for index in range(20)]
    connection.send(b"".join(request(body=body) for body in bodies))
    for index in range(20):
        assert json.loads(connection.answer()[2]) == {"predictions": [index / 2 + 3]}


def test_pages_and_predictions_are_pipelined_together(connection):
    connection.send(
        request("GET", "/v2", b"") + request() + request("GET", "/nope", b"") + request()
    )
    answers = [connection.answer() for _ in range(4)]
    assert [status for status, _, _ in answers] == [200, 200, 404, 200]
    check(answers[3])


@pytest.mark.parametrize(
    "end", [b"0\r\n\r\n", b"0\r\nX-Trailer: 1\r\n\r\n"], ids=["plain", "trailer"]
)
def test_a_body_in_chunks_of_any_size(connection, end):
    pieces = [BODY[index : index + 1] for index in range(len(BODY))]
    connection.send(chunked(*pieces, end=end) + chunked(BODY[:9], BODY[9:], end=end))
    check(connection.answer())
    check(connection.answer())


def large_body(rows):
    """2 kB for each row, so that the answer is small."""
    numbers = b", ".join(b"%d.%02000d" % (row, 0) for row in range(rows))
    return b'{"instances": [%b]}' % numbers


@pytest.mark.parametrize("size", [1 << 30, 100_001], ids=["at once", "in pieces"])
def test_large_bodies_end_where_the_next_request_begins(connection, size):
    rows = [1000, 1, 300, 2, 500]
    whole = b"".join(request(body=large_body(count)) for count in rows)
    for start in range(0, len(whole), size):
        connection.send(whole[start : start + size])
    for count in rows:
        predictions = [row / 2 + 3 for row in range(count)]
        assert json.loads(connection.answer()[2]) == {"predictions": predictions}


def test_a_request_that_comes_byte_by_byte(connection):
    for byte in request():
        connection.send(bytes([byte]))
    check(connection.answer())


def test_a_client_that_waits_for_leave_to_send_its_body_gets_it(connection):
    whole = request(Expect="100-continue")
    connection.send(whole[: -len(BODY)])
    assert connection.status_line() == "HTTP/1.1 100 Continue"
    assert connection.stream.readline() == b"\r\n"
    connection.send(BODY)
    check(connection.answer())
    connection.send(whole)
    while (line := connection.status_line()) != "HTTP/1.1 200 OK":
        assert line in ("HTTP/1.1 100 Continue", ""), "the body was sent without waiting for leave"


def test_a_body_that_would_be_too_large_is_refused_from_its_head(connection):
    head = request(body=b"", Expect="100-continue").replace(
        b"Content-Length: 0", b"Content-Length: 99999999999"
    )
    connection.send(head)
    status, headers, body = connection.answer()
    assert (status, headers["content-type"]) == (413, "application/json")
    assert "SLUICE_MAX_BODY_BYTES" in json.loads(body)["error"]


BAD_HTTP = {
    "no request": b"what is this\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "another version": b"GET / HTTP/9.9\r\n\r\n",
    "method": b"G@T / HTTP/1.1\r\nHost: x\r\n\r\n",
    "header": b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
    "header name": b"GET / HTTP/1.1\r\nHost: x\r\nbad name: 1\r\n\r\n",
    "header of a line": b"GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n",
    "header with a zero byte": b"GET / HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
    "negative length": request().replace(b"Length: 25", b"Length: -1"),
    "length that is no number": request().replace(b"Length: 25", b"Length: 2x"),
    "length of 5,000 digits": request().replace(b"Length: 25", b"Length: " + b"9" * 5000),
    "two lengths": request(Content_length="3"),
    "length and chunks": request(Transfer_Encoding="chunked"),
    "unknown coding": request(Transfer_Encoding="tripled").replace(b"Content-Length: 25\r\n", b""),
    "chunk size": chunked(end=b"xyz\r\n"),
    "negative chunk": chunked(end=b"-1\r\n"),
    "endless chunk size": chunked(end=b"1" * 100 + b"\r\n"),
    "chunk without its end": chunked(end=b"3\r\nabcdefgh\r\n0\r\n\r\n"),
    "long line": b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "long header": request("GET", "/", b"", X="a" * 70_000),
    "many headers": request("GET", "/", b"", **{f"X{index}": 1 for index in range(300)}),
    "flood of trailers": chunked(BODY, end=b"0\r\n" + b"X: 1\r\n" * 100_000 + b"\r\n"),
}


@pytest.mark.parametrize("name", BAD_HTTP)
def test_what_is_no_http_is_refused_in_the_shape_of_all_errors(front, name):
    with connected(front) as connection:
        half = len(BAD_HTTP[name]) // 2
        connection.send(BAD_HTTP[name][:half])
        connection.send(BAD_HTTP[name][half:])
        status, headers, body = connection.answer()
        assert 400 <= status < 500 or (name == "unknown coding" and status == 501), status
        assert headers["content-type"] == "application/json"
        assert list(json.loads(body)) == ["error"], body
    with connected(front) as connection:
        connection.send(request())
        check(connection.answer())


@pytest.mark.parametrize("name", ["websocket", "h2c"])
def test_who_asks_for_another_protocol_is_answered_in_this_one(connection, name):
    asked = {"Upgrade": name, "Connection": "Upgrade, HTTP2-Settings", "HTTP2_Settings": "AAMA"}
    asked |= {"Sec_WebSocket_Version": 13, "Sec_WebSocket_Key": "MDEyMzQ1Njc4OTAxMjM0NQ=="}
    connection.send(request("GET", "/v1/models/affine", b"", **asked) + request())
    assert connection.answer()[0] == 200
    check(connection.answer())


def test_a_model_in_percents(connection):
    connection.send(request(path="/v1/models/%61ffine%3Apredict"))
    check(connection.answer())


@pytest.mark.parametrize("host", ["http://x", "HTTP://x:80", "https://[::1]:8443"])
def test_the_host_may_stand_before_the_path(connection, host):
    connection.send(request("GET", f"{host}/v1/models/affine?", b""))
    assert connection.answer()[0] == 200
    connection.send(request(path=f"{host}/v1/models/%61ffine:predict"))
    check(connection.answer())
    connection.send(request("GET", host, b""))
    assert connection.answer()[0] == 200


# What both ways of answering HTTP share.


@pytest.fixture
def url(gateway):
    return gateway.url


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/models/affine", 200),
        ("/v1/models/affine/metadata", 200),
        ("/v1/models/nope", 404),
        ("/v2/models/affine", 200),
        ("/v2", 200),
        ("/healthz", 200),
        ("/readyz", 200),
        ("/openapi.json", 200),
    ],
)
def test_head_is_get_without_the_body(url, path, status):
    with connected(url) as connection:
        connection.send(request("GET", path, b""))
        got = connection.answer()
        connection.send(request("HEAD", path, b"") + request("GET", path, b""))
        head = connection.answer(with_body=False)
        assert head[0] == got[0] == status
        same = ("content-type", "content-length")
        assert [head[1][name] for name in same] == [got[1][name] for name in same]
        assert connection.answer()[0] == status, "its next request is read where it begins"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/healthz", {"GET", "HEAD", "OPTIONS"}),
        ("POST", "/v2/models/affine", {"GET", "HEAD", "OPTIONS"}),
        ("GET", "/v2/models/affine/infer", {"POST", "OPTIONS"}),
        ("HEAD", "/v2/models/affine/infer", {"POST", "OPTIONS"}),
        ("PUT", "/v2/repository/index", {"GET", "HEAD", "POST", "OPTIONS"}),
        ("BREW", "/v2", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_a_method_that_is_none_of_a_path(url, method, path, allowed):
    reply = requests.request(method, url + path, timeout=30)
    assert reply.status_code == 405
    assert set(reply.headers["Allow"].split(", ")) == allowed
    if method != "HEAD":
        assert reply.json() == {"error": f"Method Not Allowed: {method} {path}"}


def test_options_says_what_is_allowed(url):
    reply = requests.options(f"{url}/v2/models/affine/infer", timeout=30)
    assert reply.status_code == 200
    assert set(reply.headers["Allow"].split(", ")) == {"POST", "OPTIONS"}


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
def test_a_packed_body(url, pack):
    encoding = "gzip" if pack is gzip.compress else "deflate"
    reply = requests.post(
        url + PREDICT, data=pack(BODY), headers={"Content-Encoding": encoding}, timeout=30
    )
    assert reply.json() == ANSWER


def asked(url, method="GET", path="/v1/models/affine", **headers):
    return requests.request(
        method, url + path, headers={key.replace("_", "-"): headers[key] for key in headers}
    )


@pytest.mark.parametrize("given", ["abc-1", "x" * 128, "a b"])
def test_a_clients_request_id_comes_back(url, given):
    assert asked(url, X_Request_Id=given).headers["X-Request-Id"] == given


@pytest.mark.parametrize(
    ("given", "back"),
    [
        ("x" * 500, r"x{128}"),
        ("", r"[0-9a-f]{16}"),
        ("é", r"[0-9a-f]{16}"),
        (None, r"[0-9a-f]{16}"),
    ],
)
def test_one_is_made_where_there_is_none_to_take(url, given, back):
    headers = {} if given is None else {"X-Request-Id": given.encode()}
    reply = requests.get(f"{url}/v1/models/affine", headers=headers, timeout=30)
    assert re.fullmatch(back, reply.headers["X-Request-Id"])


def test_made_ids_differ_and_refusals_have_one(url):
    paths = ("/v1/models/affine", "/v1/models/nope", "/v2", "/nope", "/v1/nope", "/docs/nope")
    replies = [asked(url, path=path) for path in paths * 2]
    assert len({reply.headers["X-Request-Id"] for reply in replies}) == 12
    for path in paths:
        assert asked(url, path=path, X_Request_Id="mine").headers["X-Request-Id"] == "mine"


@pytest.fixture(scope="module")
def slow_url(launch_gateway, slow_server, way):
    """A gateway of a few places before the model server that waits."""
    return launch_gateway(slow_server[1], way, request_timeout_s=20, model_places=2).url


@pytest.fixture(scope="module")
def one_place(launch_gateway, slow_server):
    """A front with a single place, and little patience for heads."""
    return launch_gateway(slow_server[1], model_places=1, head_timeout_s=HEAD_TIMEOUT_S).url


LARGE = 1 << 20


@pytest.fixture(scope="module")
def one_large_body(launch_gateway, modelserver):
    """A front with memory for a single large body, and little patience for what is left of it."""
    limits = {"max_body_bytes": LARGE, "max_bytes_in_flight": LARGE, "body_timeout_s": 8}
    return launch_gateway(modelserver.address, **limits).url


@pytest.mark.parametrize("end", ["it stops", "it hangs up"])
def test_a_large_body_that_does_not_come_to_its_end_gives_its_memory_back(one_large_body, end):
    body = large_body(500)

    def until_another_is_answered(status):
        deadline = time.monotonic() + 30
        url = one_large_body + PREDICT
        while requests.post(url, data=body, timeout=30).status_code != status:
            assert time.monotonic() < deadline

    with connected(one_large_body) as connection:
        connection.send(request(body=body)[: -len(body) // 4])
        until_another_is_answered(503)
        if end == "it stops":
            status, headers, reason = connection.answer()
            assert (status, headers["connection"]) == (408, "close")
            assert "SLUICE_BODY_TIMEOUT_S" in json.loads(reason)["error"]
    until_another_is_answered(200)


def ask_slow(url, timeout=30, **headers):
    return requests.post(
        f"{url}/v1/models/slow:predict",
        json={"instances": [1.0]},
        timeout=timeout,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_ids_and_traces_are_passed_on_and_nothing_else(slow_url, slow):
    slow[0].go.set()
    sent = {"X_Request_Id": "abc", "traceparent": TRACE, "tracestate": "a=b", "Cookie": "secret"}
    assert ask_slow(slow_url, **sent).json() == {"predictions": [1.0]}
    ((metadata, left_s),) = slow[0].contexts
    assert {name: metadata[name] for name in ("x-request-id", "traceparent", "tracestate")} == {
        "x-request-id": "abc",
        "traceparent": TRACE,
        "tracestate": "a=b",
    }
    assert "cookie" not in metadata
    assert 10 < left_s <= 21


@pytest.mark.parametrize(
    "trace", [{"traceparent": "\xff"}, {"tracestate": "a" * 8000}, {"traceparent": "a\tb"}], ids=str
)
def test_traces_that_are_none_are_not_passed_on(slow_url, slow, trace):
    slow[0].go.set()
    with connected(slow_url) as connection:
        head = request(path="/v1/models/slow:predict", body=b'{"instances": [1]}', **trace)
        connection.send(head.decode().encode("latin-1"))
        assert connection.answer()[0] == 200
    assert not {"traceparent", "tracestate"} & slow[0].contexts[0][0].keys()


def test_a_client_shortens_its_requests_time(slow_url, slow):
    began = time.monotonic()
    reply = ask_slow(slow_url, X_Request_Timeout_Ms="4000")
    assert reply.status_code == 504
    assert "No answer within 4 s" in reply.json()["error"]
    assert 4 <= time.monotonic() - began < 15
    assert slow[0].contexts[0][1] < 5, "gRPC rounds it up"
    assert slow[0].cancelled.wait(30)


@pytest.mark.parametrize("given", ["60000", "-5", "x", "", "1e3", "9" * 5000])
def test_it_does_not_lengthen_it_and_nonsense_is_none(slow_url, slow, given):
    slow[0].go.set()
    assert ask_slow(slow_url, X_Request_Timeout_Ms=given).status_code == 200
    assert 10 < slow[0].contexts[0][1] <= 21


@pytest.mark.parametrize(
    ("code", "status"),
    [(grpc.StatusCode.RESOURCE_EXHAUSTED, 429), (grpc.StatusCode.UNAVAILABLE, 503)],
)
def test_a_model_server_that_cannot_is_worth_another_try(slow_url, slow, code, status):
    slow[0].refusal = code
    reply = ask_slow(slow_url)
    assert (reply.status_code, reply.headers["Retry-After"]) == (status, "1")
    assert "as the test wants it" in reply.json()["error"]
    assert "node" not in reply.json()["error"]


def test_more_than_there_are_places_for_are_turned_away(slow_url, slow):
    def begin(connection):
        connection.send(request(path="/v1/models/slow:predict", body=b'{"instances": [1]}'))

    with connected(slow_url) as one, connected(slow_url) as two:
        begin(one)
        assert slow[0].arrived.wait(30)
        begin(two)
        deadline = time.monotonic() + 30
        while (reply := ask_slow(slow_url, X_Request_Timeout_Ms="300")).status_code != 503:
            assert reply.status_code == 504
            assert time.monotonic() < deadline
        assert reply.headers["Retry-After"] == "1"
        assert "SLUICE_MODEL_PLACES" in reply.json()["error"]
        assert requests.get(f"{slow_url}/healthz", timeout=30).status_code == 200
        slow[0].go.set()
        for connection in (one, two):
            assert json.loads(connection.answer()[2]) == {"predictions": [1.0]}
    assert ask_slow(slow_url).status_code == 200


def test_a_caller_that_hangs_up_frees_its_place_and_ends_its_call(one_place, slow):
    url = one_place
    with connected(url) as connection:
        connection.send(request(path="/v1/models/slow:predict", body=b'{"instances": [1]}'))
        assert slow[0].arrived.wait(30)
        assert ask_slow(url).status_code == 503
    assert slow[0].cancelled.wait(30)
    slow[0].go.set()
    assert ask_slow(url).status_code == 200


def test_it_is_refused_before_its_body_has_come(one_place, slow):
    with connected(one_place) as one:
        one.send(request(path="/v1/models/slow:predict", body=b'{"instances": [1]}'))
        assert slow[0].arrived.wait(30)
        with connected(one_place) as two:
            two.send(request(path="/v1/models/slow:predict")[: -len(BODY)])
            status, headers, body = two.answer()
        assert (status, headers["retry-after"]) == (503, "1")
        assert "SLUICE_MODEL_PLACES" in json.loads(body)["error"]


def test_a_body_that_comes_behind_its_head_is_not_taken_for_the_next_request(one_place, slow):
    slow[0].go.set()
    message = request(
        path="/v1/models/slow:predict", body=b'{"instances": [1]}', X_Request_Timeout_Ms=5000
    )
    with connected(one_place) as connection:
        for _ in range(2):
            connection.send(message[:-9])
            time.sleep(0.1)
            connection.send(message[-9:])
            assert connection.answer()[0] == 200
            time.sleep(HEAD_TIMEOUT_S + 1)  # nothing is begun, so nothing is waited for

"""A server that goes away, comes back, is slow, or is none: what a client makes of it."""

import contextlib
import http.server
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sluice import BadReply, Client, DeadlineExceeded, Unavailable
from tests.processes import free_port

METADATA = b"""{"model_spec": {"version": "1"}, "metadata": {"signature_def": {"signatureDef": {
    "serving_default": {"inputs": {"x": {"dtype": "DT_FLOAT", "tensorShape": {"dim": []}}}}}}}}"""
ANSWER = b"""{"model_version": "1", "outputs": [
    {"name": "y", "datatype": "FP32", "shape": [1], "data": [7]}]}"""

over_http = pytest.mark.parametrize("kind", ["http", "http-async"])


@pytest.fixture
def unused_port():
    return free_port()


@pytest.fixture
def silent():
    """A socket to which anybody can connect, and which says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def scripted():
    """`scripted(*answers)` -> URL of an HTTP server that gives them in turn: (status, body), or a
    function of the handler. `asked` holds the paths."""
    with contextlib.ExitStack() as stack:

        def serve(*answers):
            server = Scripted(("127.0.0.1", 0), Handler)
            server.answers, server.asked = list(answers), []
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}", server.asked

        yield serve


class Scripted(http.server.ThreadingHTTPServer):
    answers: list
    asked: list


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(self.path)
        given = self.server.answers.pop(0)
        if callable(given):
            given(self)
            return
        status, body = given
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer  # noqa: N815 - the library's names

    def log_message(self, *_):
        pass


def hang_up(handler):
    handler.close_connection = True


def dribble(handler):
    """Until the client hangs up. One that does not gets no whole body either."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    with contextlib.suppress(OSError):  # the client hangs up
        for _ in range(3000):
            handler.wfile.write(b" ")
            time.sleep(0.02)
    handler.close_connection = True


def test_nobody_there(connect, scheme, unused_port):
    client = connect(f"{scheme}://127.0.0.1:{unused_port}", retries=1)
    with pytest.raises(Unavailable, match=f"(?i)127.0.0.1:{unused_port}.*(refused|failed)"):
        client.predict("affine", [1.0])
    assert not client.ready()


def test_a_server_that_says_nothing_is_asked_once(connect, scheme, silent):
    url = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}"
    client = connect(url, timeout_s=0.5, retries=30)
    began = time.monotonic()
    with pytest.raises((DeadlineExceeded, Unavailable)):
        client.predict("affine", [1.0])
    assert 0.4 < time.monotonic() - began < 20  # thirty tries, with their pauses, take over 40 s
    if scheme == "http":  # over gRPC all of them take the same connection
        assert connections(silent) <= 1
    assert not client.ready(timeout_s=0.2)


def connections(listener):
    """How many have been made, which the kernel does at once."""
    listener.setblocking(False)
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
            count += 1
    return count


@over_http
def test_what_fails_on_the_way_is_sent_again(connect, scripted):
    url, asked = scripted((200, METADATA), (503, b"{}"), hang_up, (429, b"{}"), (200, ANSWER))
    assert connect(url).predict("m", [1.0])["y"] == 7
    assert asked == ["/v1/models/m/metadata", *["/v2/models/m/infer"] * 4]


@over_http
def test_time_is_kept_with_a_body_that_comes_slowly(connect, scripted):
    url, asked = scripted(dribble, (200, METADATA))
    with pytest.raises(DeadlineExceeded, match=r"no answer within .+ s"):  # while it is coming
        connect(url, timeout_s=5).metadata("m")
    assert len(asked) == 1


def test_something_else_at_the_port(scripted):
    url, _ = scripted((200, b"<html>Welcome</html>"), (200, b"<html>Welcome</html>"))
    with Client(url) as client, pytest.raises(BadReply, match="Welcome"):
        client.predict("m", [1.0])


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://host", "http://", "grpc://host:port", ""])
def test_a_url_that_is_none(url):
    with pytest.raises(ValueError, match=r"URL|[Pp]ort"):
        Client(url)


def test_a_model_servers_restart(launch_modelserver, launch_gateway, conformance_models):
    flags = (f"--model_base_path={conformance_models}/affine", "--model_name=affine")
    server = launch_modelserver(*flags)
    gateway = launch_gateway(server.address, models="affine")
    clients = [
        Client(url, timeout_s=120, retries=120) for url in (gateway.url, f"grpc://{server.address}")
    ]
    for client in clients:
        assert client.predict("affine", [1.0])["y"] == 2
    server.process.kill()
    server.wait()
    with ThreadPoolExecutor() as pool:
        predictions = [pool.submit(client.predict, "affine", [1.0]) for client in clients]
        launch_modelserver(*flags, f"--port={server.port}")
        assert [each.result()["y"] for each in predictions] == [2, 2]
    for client in clients:
        client.close()

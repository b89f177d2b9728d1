"""Answers that nobody reads: a worker holds so many, and lets the slowest readers go."""

import contextlib
import json
import socket
import ssl
import time

import psutil
import pytest
import requests

from service.gateway.front.unsent import SETTLE_S, Owed, Unsent
from service.gateway.settings import Settings
from tests.gateway.hostile import Workers, closed_connections
from tests.processes import free_port
from tests.system.certificates import Folder

NOW = 1000.0
ROOM = 1 << 12  # what a client's system takes
VALUES = 1_000_000
BODY = b'{"instances": [' + b",".join([b"1.2345678"] * VALUES) + b"]}"  # 10 MB, as the answer
# Of an answer the system takes some 4 MB, of which a worker holds all.
MANY, MOST_BYTES = 12, 16 << 20
HOUR_S = 3600
SOME = 3 << 18  # bytes of an answer, more than its system takes for who reads nothing


class Client:
    """Whose answer takes so much, and who took so much of it in so many seconds."""

    is_open = True

    def __init__(self, held, taken=0, seconds=10.0):
        self._held, self._taken, self._since = held, taken, NOW - seconds

    def held(self):
        return self._held if self.is_open else 0

    def taken(self, _):
        return self._taken, self._since

    def hang_up(self, reason):
        assert reason == "room"
        self.is_open = False


@pytest.mark.parametrize(
    ("clients", "open_ones"),
    [
        pytest.param([Client(50), Client(50)], [True, True], id="room for all"),
        pytest.param([Client(60), Client(50, 1)], [False, True], id="none before some"),
        pytest.param([Client(60, 9), Client(50, 1)], [True, False], id="slow before fast"),
        pytest.param([Client(60), Client(50, 0, 11.0)], [True, False], id="the first of equals"),
        pytest.param(
            [Client(60, 0, 0.0), Client(50, 9)], [True, False], id="not who has just begun"
        ),
        pytest.param(
            [Client(60, 0, SETTLE_S / 2), Client(50, 0, 0.0)], [False, True], id="unless all have"
        ),
        pytest.param(
            [Client(60, 9, SETTLE_S / 2), Client(50, 0, 0.0)], [False, True], id="not by their pace"
        ),
        pytest.param([Client(200)], [True], id="one that is larger than all"),
        pytest.param([Client(40, n) for n in range(5)], [False] * 3 + [True] * 2, id="no more"),
    ],
)
def test_the_slowest_make_room(clients, open_ones):
    unsent = Unsent()
    for each in clients:
        unsent.add(each)
    unsent.make_room(100, NOW)
    assert [each.is_open for each in clients] == open_ones


@pytest.mark.parametrize("left", [0, 1])
def test_who_has_taken_all_is_not_waited_for(left):
    owed, settings = Owed(), Settings(model_server="127.0.0.1:1", body_timeout_s=0.2)
    for now in (1.0, 1.5, 2.0):
        owed.look(left, now)
    assert owed.has_waited(2.0, settings) == bool(left)


def test_who_has_taken_all_is_forgotten():
    unsent, done = Unsent(), Client(0)
    unsent.add(done)
    unsent.make_room(100, NOW)
    assert done.is_open
    assert not unsent._readers


@pytest.fixture(params=["plain", "TLS"])
def tls(request, tmp_path):
    return Folder(tmp_path) if request.param == "TLS" else None


def test_answers_that_nobody_reads_are_not_kept(launch_gateway, slow, tls):
    """Their clients have an hour to read on; who reads is answered."""
    slow[0].go.set()
    settings = {} if tls is None else tls.settings()
    gateway = launch_gateway(
        slow[1],
        max_bytes_in_flight=MOST_BYTES,
        max_body_bytes=MOST_BYTES,
        body_timeout_s=HOUR_S,
        min_body_rate=1,
        **settings,
    )
    workers, port = Workers(gateway), int(gateway.url.rpartition(":")[2])
    (worker,) = map(psutil.Process, workers.pids)

    def connections():
        found = [each for each in worker.net_connections() if each.laddr.port == port]
        return [each for each in found if each.status == psutil.CONN_ESTABLISHED]

    with contextlib.ExitStack() as stack:
        for _ in range(MANY):
            ask_and_read_nothing(stack, port, tls)
        deadline = time.monotonic() + 60
        while len(connections()) == MANY:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        answer = requests.post(
            f"{'https' if tls else 'http'}://localhost:{port}/v1/models/m:predict",
            data=BODY,
            headers={"Content-Type": "application/json"},
            verify=tls["ca.pem"] if tls else None,
            timeout=60,
        )
        assert len(json.loads(answer.content)["predictions"]) == VALUES
    workers.check(of="service")


def test_who_reads_slowly_outlasts_who_reads_nothing(launch_gateway, slow, tls):
    """Though the system has taken as much from the one as from the other, and the one came first:
    of three answers there is room for two."""
    slow[0].go.set()
    admin_port = free_port()
    settings = {} if tls is None else tls.settings()
    gateway = launch_gateway(
        slow[1],
        admin_port=admin_port,
        max_bytes_in_flight=5 * len(BODY),
        body_timeout_s=HOUR_S,
        min_body_rate=1,
        **settings,
    )
    port = int(gateway.url.rpartition(":")[2])
    with contextlib.ExitStack() as stack:
        reader, other = (ask_and_read_nothing(stack, port, tls) for _ in range(2))
        assert read_on(reader, SOME) == SOME
        time.sleep(2 * SETTLE_S)  # nobody has just begun
        third = ask_and_read_nothing(stack, port, tls)
        assert read_on(other, 2 * len(BODY)) < len(BODY)
        assert read_on(reader, len(BODY) - SOME) == len(BODY) - SOME
        assert read_on(third, len(BODY)) == len(BODY)
    assert closed_connections(admin_port) == {"room": 1}


def read_on(client, size):
    """So many bytes, or how many there were until the gateway hung up."""
    left = size
    with contextlib.suppress(ConnectionError, ssl.SSLEOFError):
        while left and (came := client.recv(min(left, 1 << 16))):
            left -= len(came)
    return size - left


def ask_and_read_nothing(stack, port, tls):
    """Up to the first byte of the answer. The client."""
    client = stack.enter_context(socket.socket())
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
    client.settimeout(60)
    client.connect(("127.0.0.1", port))
    if tls is not None:
        context = tls.client_context()
        client = stack.enter_context(context.wrap_socket(client, server_hostname="localhost"))
    head = "POST /v1/models/m:predict HTTP/1.1\r\nHost: localhost\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
    client.sendall(head.encode() + BODY)
    assert client.recv(1) == b"H"
    return client

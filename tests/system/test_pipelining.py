"""Requests that are sent before those ahead of them are answered."""

import json
import socket


def test_large_requests_are_answered_in_turn_however_early_they_come(launch_toy, launch_front):
    """They fill more than the HTTP parser keeps of what comes too early."""
    gateway = launch_front(launch_toy().address, workers=1)
    sizes = [50_000, 1, 60_000, 2, 3, 40_000]  # of about 4 bytes each in JSON
    requests = b"".join(_request(size) for size in sizes)
    with socket.create_connection(("127.0.0.1", gateway.http_port), timeout=60) as connection:
        connection.sendall(requests)
        reader = connection.makefile("rb")
        answers = [_answer(reader) for _ in sizes]
    assert [(status, len(document["predictions"])) for status, document in answers] == [
        (200, size) for size in sizes
    ]


def test_a_connection_that_asks_nothing_more_is_closed(launch_toy, launch_front, monkeypatch):
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--keep-alive=1")
    gateway = launch_front(launch_toy().address, workers=1)
    with socket.create_connection(("127.0.0.1", gateway.http_port), timeout=60) as connection:
        connection.sendall(_request(3))
        reader = connection.makefile("rb")
        assert _answer(reader)[0] == 200
        assert reader.read() == b""


def _request(size: int) -> bytes:
    body = json.dumps({"instances": [0.5] * size}).encode()
    head = f"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _answer(reader) -> tuple[int, dict]:
    status = int(reader.readline().split()[1])
    length = 0
    while (line := reader.readline().strip()) != b"":
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return status, json.loads(reader.read(length))

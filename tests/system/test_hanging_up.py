"""Callers that leave before they are answered."""

import socket
import time
from collections.abc import Callable

import requests

from tests.system.load import Question

CALLERS = 20


def test_whoever_hangs_up_frees_the_place_and_is_not_asked_for(launch_toy, launch_front):
    toy = launch_toy("--call-s=300")
    gateway = launch_front(toy.address, workers=1)
    message = Question(gateway.http_port, "/v1/models/toy:predict", b'{"instances":[1.5]}').message
    callers = []
    for _ in range(CALLERS):
        callers.append(socket.create_connection(("127.0.0.1", gateway.http_port)))
        callers[-1].sendall(message)
        toy.wait_for("came rows=1")  # the first is at the model server, the others in line
    wait_until(lambda: in_flight(gateway) == CALLERS)
    for caller in callers[1:]:
        caller.close()
    wait_until(lambda: in_flight(gateway) == 1)
    callers[0].close()  # after the others: its call being over, whoever waits is asked for
    wait_until(lambda: in_flight(gateway) == 0)
    toy.wait_for("cancelled rows=1")
    assert toy.log.count("came") == 1, "those in line were never sent"


def in_flight(gateway) -> int:
    metrics = requests.get(f"http://127.0.0.1:{gateway.admin_port}/metrics", timeout=10).text
    lines = (line.split() for line in metrics.splitlines())
    return int(next(float(line[1]) for line in lines if line[0] == "sluice_requests_in_flight"))


def wait_until(holds: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)

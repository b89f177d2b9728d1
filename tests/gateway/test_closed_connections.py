"""What an operator sees of the connections that a gateway closes on its clients."""

import contextlib
import socket
from collections.abc import Mapping

import pytest

from service.gateway.descriptors import SPARE_FILES
from tests.gateway.hostile import closed_connections
from tests.gateway.rollouts import eventually
from tests.gateway.test_unsent import ask_and_read_nothing
from tests.processes import GatewayProcess, free_port
from tests.system.certificates import Folder

MOST, BEYOND = 40, 3
HEAD = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 18\r\n\r\n"


class NarrowGateway(GatewayProcess):
    """One that may have few descriptors."""

    def _start(self, command: list[str], variables: Mapping[str, str] | None = None) -> None:
        limit = f'ulimit -n {SPARE_FILES + MOST} && exec "$@"'
        super()._start(["sh", "-c", limit, "sh", *command], variables)


@pytest.mark.parametrize("speaks", ["plain", "TLS"])
def test_those_that_are_too_many(slow, tmp_path, speaks):
    folder = Folder(tmp_path) if speaks == "TLS" else None
    settings = {} if folder is None else folder.settings()
    admin_port = free_port()
    gateway = NarrowGateway(
        slow[1], workers=1, admin_port=admin_port, head_timeout_s=3600, **settings
    )
    try:
        gateway.wait_for(gateway.up)
        port = int(gateway.url.rpartition(":")[2])
        with contextlib.ExitStack() as stack:
            clients = [connect(stack, port) for _ in range(MOST + BEYOND)]
            for client in clients[MOST:]:
                with contextlib.suppress(ConnectionResetError):
                    assert client.recv(1) == b""
            assert eventually(lambda: closed_connections(admin_port)) == {"full": BEYOND}
    finally:
        gateway.terminate()


def test_those_of_clients_that_are_late_or_do_not_read(launch_gateway, slow):
    slow[0].go.set()
    admin_port = free_port()
    gateway = launch_gateway(slow[1], admin_port=admin_port, head_timeout_s=3, body_timeout_s=5)
    port = int(gateway.url.rpartition(":")[2])
    with contextlib.ExitStack() as stack:
        for said in (HEAD[:9], HEAD, HEAD + b"{"):
            client = connect(stack, port)
            client.sendall(said)
            assert client.recv(12) == b"HTTP/1.1 408"
        ask_and_read_nothing(stack, port, None)
        counted = {"head": 1, "body": 2, "unread": 1}
        eventually(lambda: closed_connections(admin_port) == counted)


def connect(stack, port):
    return stack.enter_context(socket.create_connection(("127.0.0.1", port), 60))

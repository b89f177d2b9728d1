"""The port for machines, without a gateway behind it."""

import socket

import pytest

from service.gateway.front.admin import _Server


def test_it_is_opened_where_no_dns_answers(monkeypatch):
    """http.server asks for this machine's name, in the event loop, and has no use for it."""
    monkeypatch.setattr(socket, "getfqdn", lambda *_: pytest.fail("the DNS is asked"))
    with _Server(("127.0.0.1", 0), None) as server:
        assert server.server_address[1]

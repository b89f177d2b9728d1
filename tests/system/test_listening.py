"""Where `sluice up` and the gateway listen: hosts, and ports that are taken."""

import os
import re
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
import requests

from service.up.ports import port_problem
from service.up.welcome import welcome
from sluice import Client
from tests.processes import ROOT, needs_make_serve


@pytest.mark.parametrize("option", ["--http-port", "--metrics-port"])
@pytest.mark.parametrize("command", [["up"], ["up", "--check"]])
def test_a_port_in_use_is_named_before_anything_starts(repository, free_port, command, option):
    with socket.create_server(("", free_port)):
        outcome = subprocess.run(
            [
                *(sys.executable, "-m", "service.cli", *command),
                f"--model-repository={repository}",
                f"{option}={free_port}",
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert outcome.returncode == 1
    assert re.fullmatch(
        rf"(Error: |\[sluice\] )port {free_port} cannot be used at 127.0.0.1 \(Address already in "
        rf"use\): end what listens there, or choose another with {option}\n",
        outcome.stderr,
    )


def test_make_serve_finds_a_busy_port_before_it_trains(tmp_path, free_port):
    needs_make_serve()
    with socket.create_server(("", free_port)):
        outcome = subprocess.run(
            ["make", "serve", f"HTTP_PORT={free_port}", f"MODEL_REPOSITORY={tmp_path}/models"],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=60,
            check=False,
        )
    assert f"Error: port {free_port} cannot be used at 127.0.0.1" in outcome.stderr
    assert outcome.returncode != 0
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("option", ["--grpc-port", "SLUICE_GRPC_PORT", "SLUICE_ADMIN_PORT"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_every_port_is_looked_at(free_port, option, host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as busy:
        port = busy.getsockname()[1]
        assert port_problem(host, {"--http-port": free_port, option: port}) == (
            f"port {port} cannot be used at {host} (Address already in use): end what listens "
            f"there, or choose another with {option}"
        )
    assert port_problem(host, {"--http-port": free_port, option: port}) == ""


@pytest.mark.parametrize(
    ("host", "reason"),
    [("192.0.2.1", "is no address of this machine"), ("nowhere.invalid", "is no address (")],
)
def test_a_host_that_cannot_be_listened_at_is_named(free_port, host, reason):
    assert port_problem(host, {"--http-port": free_port}).startswith(f"--host {host} {reason}")


@pytest.fixture
def name_of(monkeypatch):
    """`name_of(*addresses)`: what `localhost` is from now on, in this order."""
    look_up = socket.getaddrinfo

    def be(*addresses):
        def named(_, port, family=0, type=0):  # noqa: A002 - its own name
            found = [each for address in addresses for each in look_up(address, port, 0, type)]
            return [each for each in found if family in (0, each[0])]

        monkeypatch.setattr(socket, "getaddrinfo", named)

    return be


@pytest.mark.parametrize("busy", ["127.0.0.1", "::1"])
def test_a_name_is_looked_at_where_the_gateway_will_listen_and_where_it_leads(
    free_port, name_of, busy
):
    """Debian and macOS find `localhost` at ::1 first, the gateway listens at 127.0.0.1."""
    name_of("::1", "127.0.0.1")
    family = socket.AF_INET6 if ":" in busy else socket.AF_INET
    with socket.create_server((busy, free_port), family=family):
        said = port_problem("localhost", {"--http-port": free_port})
    assert said.startswith(f"port {free_port} cannot be used at localhost (Address already in use)")
    assert port_problem("localhost", {"--http-port": free_port}) == ""


def test_a_name_may_have_addresses_that_the_machine_has_not(free_port, name_of):
    """As ::1 is where IPv6 is off."""
    name_of("2001:db8::1", "127.0.0.1")
    assert port_problem("localhost", {"--http-port": free_port}) == ""


@pytest.mark.parametrize("asks_for_keys", [False, True])
def test_that_tensorflow_serving_is_open_to_others_is_said_at_the_end_too(asks_for_keys):
    """Whatever `--host` says: it has no flag for the address."""
    where = "127.0.0.1", 8080, 8500
    said = welcome(Path("models"), [], [], *where, asks_for_keys, grpc_is_open=True)
    assert "Other machines reach gRPC, without a password" in said
    assert "For this machine alone" not in said
    assert "gRPC is for this machine alone" not in said


def test_a_bad_setting_is_one_line():
    outcome = subprocess.run(
        [sys.executable, "-m", "service.cli", "gateway"],
        capture_output=True,
        text=True,
        env={"SLUICE_HTTP_PORT": "many"},
        timeout=60,
        check=False,
    )
    assert outcome.returncode == 2
    assert outcome.stderr == (
        "Error: SLUICE_HTTP_PORT: expected a whole number, 1 to 65535, got 'many'\n"
    )


def test_it_knows_that_the_gateway_is_up_whatever_the_settings_close(up, tmp_path):
    running = up(tmp_path, SLUICE_HTTP_HOST="127.0.0.2", SLUICE_PUBLIC_HEALTH="off")
    url = f"http://127.0.0.2:{running.http_port}"
    assert requests.get(f"{url}/healthz", timeout=10).status_code == 404
    with Client(url) as client:
        assert client.models() == []
    assert "/v2/health/live" not in running.log


def test_an_admin_port_is_opened_where_one_is_set_and_all_at_the_host(up, tmp_path, free_port):
    environment = {
        "SLUICE_ACCESS": "open",
        "SLUICE_ADMIN_PORT": str(free_port),
        "SLUICE_PUBLIC_METRICS": "off",
        "TF_CPP_MIN_LOG_LEVEL": "0",
    }
    running = up(tmp_path, SLUICE_HTTP_HOST="::", **environment)
    running.wait_for("Answering HTTP")
    assert "Other machines reach both, without a password" in running.log
    for host in ("127.0.0.1", "[::1]"):
        assert requests.get(f"http://{host}:{free_port}/metrics", timeout=10).ok
        assert (
            requests.get(f"http://{host}:{running.http_port}/metrics", timeout=10).status_code
            == 404
        )
        with Client(f"grpc://{host}:{running.grpc_port}") as client:
            assert client.ready()
    assert "cpu_feature_guard" in running.log  # TensorFlow's level was set, so it is heard


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
@pytest.mark.parametrize("name", ["admin_port", "grpc_port"])
def test_another_port_of_the_gateways_that_is_in_use_is_named(free_port, name, host):
    with socket.create_server(("0.0.0.0", free_port)):
        said = refused(http_host=host, **{name: free_port})
    assert (
        f"SLUICE_{name.upper()}: port {free_port} cannot be used (Address already in use)" in said
    )


@pytest.mark.parametrize(
    ("host", "reason"),
    [("192.0.2.1", "is no address of this machine"), ("nowhere.invalid", "is no address (")],
)
def test_a_host_that_the_gateway_cannot_listen_at_is_named(free_port, host, reason):
    assert f"SLUICE_HTTP_HOST: {host} {reason}" in refused(http_host=host, admin_port=free_port)


def test_a_model_server_without_a_health_service_is_no_error_in_the_log(launch_gateway, stranger):
    gateway = launch_gateway(stranger)
    requests.get(f"{gateway.url}/v1/models/anything", timeout=10)
    assert "UNIMPLEMENTED" not in gateway.log
    assert gateway.terminate() == 0


@pytest.fixture
def stranger():
    """The address of a gRPC server that has no service at all."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


@pytest.mark.parametrize(
    ("same", "names"),
    [
        (["http_port", "admin_port"], "SLUICE_HTTP_PORT and SLUICE_ADMIN_PORT"),
        (["http_port", "grpc_port"], "SLUICE_HTTP_PORT and SLUICE_GRPC_PORT"),
        (["grpc_port", "admin_port"], "SLUICE_GRPC_PORT and SLUICE_ADMIN_PORT"),
    ],
)
def test_a_port_that_the_gateway_is_to_listen_at_twice_is_named(free_port, same, names):
    said = refused(http_host="127.0.0.1", **dict.fromkeys(same, free_port))
    assert f"{names} are both {free_port}: give each a port of its own" in said


def test_sockets_that_systemd_gave_to_another_process_are_not_the_gateways(free_port, monkeypatch):
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", "1")
    said = refused(http_host="127.0.0.1", http_port=free_port, admin_port=free_port)
    assert "SLUICE_HTTP_PORT and SLUICE_ADMIN_PORT are both" in said


def refused(**settings):
    """What a gateway says that ends before it listens."""
    settings |= {"model_server": "127.0.0.1:1", "access": "open"}
    outcome = subprocess.run(
        [sys.executable, "-m", "service.cli", "gateway"],
        env=os.environ | {f"SLUICE_{name.upper()}": str(each) for name, each in settings.items()},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert outcome.returncode == 1
    return outcome.stderr

"""TLS at the gateway's doors: real handshakes over HTTP and gRPC, and files that change."""

import base64
import http.client
import json
import re
import shlex
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
import urllib.error
import urllib.request
import warnings
from pathlib import Path

import grpc
import numpy as np
import pytest
import trustme
from click.testing import CliRunner

from service.cli import main
from service.gateway.settings import Settings
from service.gateway.tls.server import server_tls
from service.gateway.variables import InvalidSetting
from sluice import Client, ClientError
from tests.system.certificates import DAY, EXPIRED, NOW

PATIENCE_S = 60


def serial_of(port: int, context: ssl.SSLContext) -> str:
    """Of the certificate that is shown at a port."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        return secured.getpeercert()["serialNumber"]


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def metric(gateway, name: str, label: str = "") -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.admin_port}/metrics") as reply:
        found = re.search(rf"^{name}(?:{{.*{label}.*}})? (.+)$", reply.read().decode(), re.M)
    return float(found[1]) if found else 0.0


def _is_ready(gateway) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{gateway.admin_port}/readyz") as reply:
            return reply.status == 200
    except urllib.error.HTTPError:
        return False


def predict(url: str, ca_file: str) -> list[float]:
    with Client(url, ca_file=ca_file, retries=0, timeout_s=PATIENCE_S) as client:
        return client.predict("m", np.float32([1, 2]))["y"].tolist()


def test_both_doors_answer_over_tls_and_nothing_else(launch_tls, folder):
    gateway = launch_tls(head_timeout_s=3)
    for url in (f"https://localhost:{gateway.http_port}", f"grpcs://localhost:{gateway.grpc_port}"):
        assert predict(url, folder["ca.pem"]) == [2, 4]
        with pytest.raises(ClientError):
            predict(url, folder["foreign.pem"])
        with pytest.raises(ClientError):
            predict(url.replace("s://", "://"), folder["ca.pem"])
    _answers_several_requests_on_one_connection(gateway.http_port, folder.client_context())
    for port, spoken in ((gateway.http_port, "http/1.1"), (gateway.grpc_port, "h2")):
        _agrees_on(port, spoken, folder.client_context())
        _refuses_old_tls(port, folder.client_context())
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as silent:
            silent.sendall(b"\x16\x03\x01")  # how a handshake begins
            assert _is_closed(silent)
    with socket.create_connection(("127.0.0.1", gateway.http_port), timeout=PATIENCE_S) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = plain.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.endswith(b'"This port speaks TLS: ask for https://"}')
    _hangs_up_within_a_handshake(gateway.http_port)
    wait_until(lambda: metric(gateway, "sluice_connections") == 0)
    assert metric(gateway, "sluice_tls_handshakes_failed_total", "NotTls") >= 2
    assert gateway.terminate() == 0


def _answers_several_requests_on_one_connection(port, context):
    connection = http.client.HTTPSConnection("localhost", port, context=context)
    for values in ([1.0], [2.0] * 300_000):  # the second fills more than a record of TLS
        connection.request("POST", "/v1/models/m:predict", json.dumps({"instances": values}))
        reply = connection.getresponse()
        assert reply.status == 200
        assert len(json.load(reply)["predictions"]) == len(values)
    connection.close()


def _agrees_on(port, spoken, context):
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        assert secured.selected_alpn_protocol() == spoken
        assert secured.version() == "TLSv1.3"


def _refuses_old_tls(port, context):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("DEFAULT@SECLEVEL=0")  # or the client would not try
    with (
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as plain,
        pytest.raises(ssl.SSLError, match=r"ALERT_PROTOCOL_VERSION|UNEXPECTED_EOF"),
    ):
        context.wrap_socket(plain, server_hostname="localhost")
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # by which alone it differs
    assert serial_of(port, context)


def _hangs_up_within_a_handshake(port):
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        connection.sendall(b"\x16\x03\x01")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _is_closed(connection):
    try:
        return connection.recv(100) == b""
    except ConnectionResetError:
        return True


def test_handshakes_that_are_reset_leave_nothing_behind(launch_tls, folder):
    gateway, resets = launch_tls(), 300
    coming, going = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = folder.client_context().wrap_bio(coming, going, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello = going.read()
    for count in range(resets):
        with socket.create_connection(("127.0.0.1", gateway.http_port), PATIENCE_S) as plain:
            plain.sendall(hello[: count % 2 * len(hello) or 1])
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(lambda: metric(gateway, "sluice_connections") == 0)
    assert predict(f"https://localhost:{gateway.http_port}", folder["ca.pem"]) == [2, 4]
    assert "Traceback" not in gateway.log


def test_clients_show_a_certificate_of_the_authoritys(launch_tls, folder):
    gateway = launch_tls(**folder.settings(folder["ca.pem"]))
    issue = folder.authority.issue_cert
    ports = (gateway.http_port, gateway.grpc_port)
    for port in ports:
        assert serial_of(port, folder.client_context(issue("client@example.org")))
    known = issue("client@example.org")
    credentials = grpc.ssl_channel_credentials(
        folder.authority.cert_pem.bytes(),
        known.private_key_pem.bytes(),
        known.cert_chain_pems[0].bytes(),
    )
    with grpc.secure_channel(f"localhost:{gateway.grpc_port}", credentials) as channel:
        assert channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=PATIENCE_S)
    refused = [
        None,
        issue("client@example.org", **EXPIRED),
        trustme.CA().issue_cert("client@example.org"),
    ]
    for certificate in refused:
        for port in ports:
            assert not _lets_in(port, folder.client_context(certificate))


def _lets_in(port, context):
    """Whether it answers: in TLS 1.3 a client hears of a refusal when it reads."""
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            secured.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            return secured.recv(1) != b""
    except (ssl.SSLError, ConnectionError):
        return False


def test_certificates_change_under_load_without_a_failed_request(launch_tls, folder):
    gateway = launch_tls()
    ports, context = (gateway.http_port, gateway.grpc_port), folder.client_context()
    failures, answered, stop = [], [], threading.Event()

    def ask(scheme, port):
        while not stop.is_set():
            try:
                answered.append(predict(f"{scheme}://localhost:{port}", folder["ca.pem"]))
            except ClientError as error:
                failures.append(error)

    askers = [
        threading.Thread(target=ask, args=each)
        for each in zip(("https", "grpcs"), ports, strict=True)
    ]
    for each in askers:
        each.start()
    try:
        for _ in range(3):
            before, count = [serial_of(port, context) for port in ports], len(answered)
            folder.renew()
            for port, serial in zip(ports, before, strict=True):
                wait_until(lambda port=port, serial=serial: serial_of(port, context) != serial)
            wait_until(lambda count=count: failures or len(answered) > count + 4)
    finally:
        stop.set()
        for each in askers:
            each.join()
    assert failures == []
    assert all(answer == [2, 4] for answer in answered)


def test_a_bad_file_changes_nothing_and_is_told(launch_tls, folder):
    gateway = launch_tls()
    context, port = folder.client_context(), gateway.http_port
    serial = serial_of(port, context)
    wait_until(lambda: metric(gateway, "sluice_tls_certificate_expiry_timestamp_seconds"))
    expires = metric(gateway, "sluice_tls_certificate_expiry_timestamp_seconds")
    assert expires > time.time()
    folder.renew(**EXPIRED)
    gateway.wait_for("SLUICE_TLS_CERTIFICATE_FILE: .* has expired .* stays in force")
    wait_until(lambda: metric(gateway, "sluice_tls_problem") == 1)
    assert serial_of(port, context) == serial
    assert _lets_in(port, context)
    wait_until(lambda: _is_ready(gateway))
    folder.renew(not_after=NOW + 400 * DAY)
    wait_until(lambda: serial_of(port, context) != serial)
    wait_until(lambda: metric(gateway, "sluice_tls_problem") == 0)
    assert metric(gateway, "sluice_tls_certificate_expiry_timestamp_seconds") != expires


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
def test_openssl_finds_the_chain_and_the_protocol(launch_tls, folder):
    gateway = launch_tls()
    said = subprocess.run(
        shlex.split(
            f"openssl s_client -connect localhost:{gateway.http_port} -alpn http/1.1 "
            f"-CAfile {folder['ca.pem']} -verify_return_error -verify_hostname localhost"
        ),
        input="",
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    assert "Verify return code: 0 (ok)" in said
    assert "ALPN protocol: http/1.1" in said


def strange(folder, name):
    """Give the file's first part a key of a curve that OpenSSL has and `cryptography` has not."""
    p256, p239 = (bytes.fromhex(f"06082a8648ce3d03010{last}") for last in (7, 5))
    begin, *lines = Path(folder[name]).read_text().partition("-----END")[0].splitlines()
    der = base64.b64decode("".join(lines))
    assert p256 in der
    text = base64.encodebytes(der.replace(p256, p239)).decode()
    folder.replace(name, f"{begin}\n{text}{begin.replace('BEGIN', 'END')}\n".encode())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: Path(f["server.pem"]).unlink(), "SLUICE_TLS_CERTIFICATE_FILE: .*No such file"),
        (lambda f: f.replace("server.pem", b"?"), "CERTIFICATE_FILE: .* holds no certificate"),
        (lambda f: f.replace("server.key", b"?"), "SLUICE_TLS_KEY_FILE: .* holds no private key"),
        (lambda f: f.replace("ca.pem", b"?"), "SLUICE_TLS_CLIENT_CA_FILE: .* no certificate"),
        (lambda f: f.renew(**EXPIRED), "CERTIFICATE_FILE: .* has expired at 20"),
        (lambda f: f.renew(not_before=NOW + DAY), "CERTIFICATE_FILE: .* is not valid before 20"),
        (
            lambda f: f.replace("server.key", trustme.CA().private_key_pem.bytes()),
            "KEY_FILE: .* is not the key of the certificate in .*server.pem",
        ),
        (lambda f: strange(f, "server.key"), "KEY_FILE: .* of a kind that is not taken here"),
        (lambda f: strange(f, "server.pem"), "CERTIFICATE_FILE: .* of a kind that is not taken"),
    ],
    ids=[
        *("missing", "no certificate", "no key", "no authority", "expired", "early", "other key"),
        *("strange key", "strange certificate"),
    ],
)
def test_what_cannot_be_used_is_named_at_the_start(folder, spoil, message):
    settings = Settings(**folder.settings(folder["ca.pem"]))
    assert server_tls(settings).problem == ""
    spoil(folder)
    with pytest.raises(InvalidSetting, match=message):
        server_tls(settings)


def test_comments_between_certificates_are_in_any_script(folder):
    authorities = "Центр\n".encode() + Path(folder["ca.pem"]).read_bytes()
    folder.replace("ca.pem", authorities)
    tls = server_tls(Settings(**folder.settings(folder["ca.pem"])))
    assert len(tls.current.context.get_ca_certs()) == 1
    again = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    folder.replace("ca.pem", authorities + again)
    with pytest.raises(InvalidSetting, match=r"SLUICE_TLS_CLIENT_CA_FILE: "):
        server_tls(Settings(**folder.settings(folder["ca.pem"])))


def test_a_certificate_without_its_key_is_no_setting(folder):
    with pytest.raises(InvalidSetting, match=r"SLUICE_TLS_KEY_FILE: .* is not given"):
        server_tls(Settings(tls_certificate_file=folder["server.pem"]))
    assert server_tls(Settings()) is None


def test_two_files_that_change_one_after_the_other_are_no_problem(folder):
    tls = server_tls(Settings(**folder.settings()))
    before = tls.current
    issued = folder.authority.issue_cert("localhost")
    folder.replace("server.pem", issued.cert_chain_pems[0].bytes())
    tls.look()
    assert (tls.current, tls.problem) == (before, "")
    folder.replace("server.key", issued.private_key_pem.bytes())
    tls.look()
    assert tls.problem == ""
    assert tls.current.identity.chain == issued.cert_chain_pems[0].bytes()


@pytest.mark.slow
def test_sluice_up_makes_a_certificate_and_says_how_to_trust_it(up, repository):
    running = up(repository, flags=["--tls-self-signed"])
    assert re.search(rf"HTTP on https://localhost:{running.http_port}", running.log)
    lines = re.findall(r"(curl --cacert .*)$", running.log, re.M)
    answers = [
        subprocess.run(["bash", "-c", f"{line} -sS"], capture_output=True, check=True).stdout
        for line in lines
    ]
    assert b"AVAILABLE" in answers[0]
    assert all(b"label_classes" in each for each in answers[1:])
    assert len(answers) == 3
    assert running.stop() == 0


@pytest.mark.parametrize(
    ("setting", "flags", "message"),
    [
        ("tls_certificate_file", ["--tls-self-signed"], "leave one out"),
        ("tls_model_server", [], "starts its own model server"),
    ],
)
def test_sluice_up_refuses_what_it_cannot_follow(folder, setting, flags, message, monkeypatch):
    given = {**folder.settings(), "tls_model_server": "on"}
    names = ["tls_certificate_file", "tls_key_file"] if "certificate" in setting else [setting]
    for name in names:
        monkeypatch.setenv(f"SLUICE_{name.upper()}", given[name])
    said = CliRunner().invoke(main, ["up", "--check", *flags])
    assert said.exit_code == 2
    assert message in said.output

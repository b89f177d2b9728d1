"""`sluice up`: real processes, real signals, real load."""

import http.client
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import time
from functools import partial

import grpc
import psutil
import pytest
import requests

from sluice.wire.protos.serving_pb2 import ReloadConfigRequest
from sluice.wire.protos.serving_pb2_grpc import ModelServiceStub
from sluice.wire.signing import SigningKey
from tests.signing import key_pair

PNG = "image/png"
PB = "saved_model.pb"
# What TensorFlow says as it starts, of what it was built with and of GPUs that are not there.
NOTICES = re.compile(r"oneDNN|cpu_feature_guard|cuInit|cudart|cuda_|absl::|TF-TRT|computation_plac")
# A process that stands still for a while is no reason to refuse anybody.
PATIENT = {"SLUICE_MAX_WAIT_S": "60"}
# Root may read everything, and is not to for once.
AS_ANYBODY = (
    ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if not os.geteuid() else []
)


def test_a_repository_is_served_at_two_ports_and_says_how(
    up, repository, published, image, monkeypatch
):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)  # as tests of training set it
    running = up(repository)
    url = f"{running.url}/v1/models/digits"
    running.wait_until(
        lambda: (
            requests.get(f"{running.url}/readyz", timeout=60).json()["models"]
            == {"digits": "AVAILABLE"}
        )
    )
    ask = partial(requests.post, f"{url}:predict", headers={"Content-Type": PNG}, timeout=30)
    assert ask(data=image).ok
    check_its_ports(running)
    for command in [
        line.split("] ", 1)[1].strip() for line in running.log.splitlines() if "curl" in line
    ]:
        answer = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, cwd=repository, check=True
        ).stdout
        assert "error" not in json.loads(answer), command
    with grpc.insecure_channel(f"127.0.0.1:{running.grpc_port}") as channel:
        with pytest.raises(grpc.RpcError) as refused:
            ModelServiceStub(channel).HandleReloadConfigRequest(ReloadConfigRequest(), timeout=10)
        assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
    right = 0
    for digit in range(10):
        file = (published / f"1/samples/{digit}-0.png").read_bytes()
        raw = ask(data=file)
        form = requests.post(f"{url}:predict", files={"image": file}, timeout=10)
        assert raw.json() == form.json()
        right += raw.json()["predictions"][0]["label_classes"][0] == str(digit)
    assert right >= 8  # a few epochs only
    assert running.stop() == 0
    assert not NOTICES.search(running.log)


def check_its_ports(running):
    """After one prediction: it is counted at the one port, and there is no third."""
    metrics = requests.get(f"{running.url}/metrics", timeout=10)
    assert re.search(r'^sluice_requests_total{[^}]*model="digits"[^}]*} 1.0', metrics.text, re.M)
    listening = {
        (connection.laddr.ip.removeprefix("::ffff:"), connection.laddr.port)  # gRPC's way
        for process in running.family()
        for connection in process.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    ports = (running.http_port, running.grpc_port)
    assert listening == {("127.0.0.1", port) for port in ports}
    assert "For this machine alone; --host 0.0.0.0 (or ::) opens both to others" in running.log


def test_the_model_servers_metrics_have_a_port_where_one_is_given(up, repository, image, free_port):
    running = up(repository, flags=[f"--metrics-port={free_port}"])
    url = f"http://127.0.0.1:{free_port}/monitoring/prometheus/metrics"
    assert f"The model server's metrics: {url}" in running.log
    predict = f"{running.url}/v1/models/digits:predict"
    assert requests.post(predict, image, headers={"Content-Type": PNG}, timeout=30).ok
    counted = requests.get(url, timeout=30).text
    assert ':tensorflow:serving:request_count{model_name="digits",status="OK"}' in counted


def test_sigterm_under_load_loses_no_accepted_request(up, repository, image, load):
    running = up(repository, **PATIENT)
    family = running.family()
    assert len(family) >= 3  # model server, gunicorn, workers
    kept = http.client.HTTPConnection("127.0.0.1", running.http_port, timeout=30)
    assert ask_on(kept, image) == (200, None)
    clients = load(f"{running.url}/v1/models/digits:predict", image, PNG, clients=8, requests=200)
    clients.wait_until(60)
    running.process.send_signal(signal.SIGTERM)
    # A connection that is kept is answered on, and told when that is the last time.
    while (answer := ask_on(kept, image)) != (200, "close"):
        assert answer == (200, None)
    kept.close()
    outcome = clients.finish()
    assert outcome["lost"] == []
    assert len(outcome["answered"]) >= 60
    assert len(outcome["answered"]) + len(outcome["refused"]) == 200
    assert running.process.wait(60) == 0
    assert not [each for each in family if is_alive(each)]


def ask_on(connection, image):
    """The status, and what becomes of the connection."""
    connection.request("POST", "/v1/models/digits:predict", image, {"Content-Type": PNG})
    reply = connection.getresponse()
    assert reply.read()
    return reply.status, reply.headers["Connection"]


def test_a_new_version_takes_over_under_load(up, conformance_models, load, tmp_path):
    (tmp_path / "affine").mkdir()
    shutil.copytree(conformance_models / "affine/1", tmp_path / "affine/1")
    running = up(tmp_path, **PATIENT)
    # More than are asked before the change; those that are left after it are not.
    clients = load(
        f"{running.url}/v1/models/affine:predict",
        b'{"instances": [1.0]}',
        "application/json",
        clients=4,
        requests=100_000,
    )
    clients.wait_until(100)
    shutil.copytree(conformance_models / "affine/2", tmp_path / "affine/.publishing")
    (tmp_path / "affine/.publishing").rename(tmp_path / "affine/2")
    running.wait_for("affine version 2 is served")
    clients.wait_until(len(clients.outcomes) + 100)
    outcome = clients.end()
    assert outcome["lost"] == outcome["refused"] == []
    answers = [answer["predictions"] for answer in outcome["answered"]]
    assert all(answer in ([2.5], [3.5]) for answer in answers), (
        "the old version's, or the new one's"
    )
    assert answers[0] == [2.5]
    assert answers[-1] == [3.5]


def test_an_empty_repository_waits_for_its_first_model_and_nothing_outlives_a_kill(
    up, tmp_path, published
):
    running = up(tmp_path)
    assert requests.get(f"{running.url}/readyz", timeout=10).status_code in (200, 503)
    shutil.copytree(published, tmp_path / ".incoming")
    (tmp_path / ".incoming").rename(tmp_path / "digits")
    running.wait_for("Successfully loaded .*digits")
    running.wait_until(lambda: requests.get(f"{running.url}/v1/models/digits", timeout=60).ok)

    family = running.family()
    assert len(family) >= 3  # the model server, gunicorn, its worker
    running.process.kill()
    running.wait_until(lambda: not [each for each in family if is_alive(each)])
    for port in (running.http_port, running.grpc_port):
        socket.create_server(("127.0.0.1", port)).close()


@pytest.fixture
def bad_models(repository):
    """`digits`, and beside it six kinds of folders that cannot be served."""
    digits = repository / "digits/1"
    for folder in ("truncated/1", "half/1", "empty/1", "keras/1", "flat"):
        (repository / folder).mkdir(parents=True)
    graph = (digits / PB).read_bytes()
    (repository / "truncated/1" / PB).write_bytes(graph[: len(graph) // 2])
    shutil.copytree(digits / "variables", repository / "half/1/variables")
    (repository / "keras/1/photos.keras").touch()
    shutil.copytree(digits, repository / "flat", dirs_exist_ok=True)
    (repository / "lost+found").mkdir(mode=0)
    return repository


def test_the_rest_goes_on_when_a_model_is_bad_or_a_server_dies(up, bad_models, image):
    running = up(bad_models, within=AS_ANYBODY)
    url = f"{running.url}/v1/models"
    ask = partial(requests.post, data=image, headers={"Content-Type": PNG}, timeout=30)
    assert ask(f"{url}/digits:predict").ok
    for line in (
        r"truncated version 1 is not served: .*truncated/1",
        r"It is tried again when its files change: copy or publish it again, or take .*ted/1 ",
        r"half is not served: .*half/1 holds no saved_model.pb: is it copied whole\?",
        r"empty is not served: .*empty/1 is empty: copy a SavedModel into it, or remove it",
        r"keras is not served: .*photos.keras is a Keras file, .*: sluice publish .*photos.keras",
        r"flat is not served: its SavedModel lies in .*flat itself, .*: make .*flat/1 and move",
        r"lost\+found is not served: it cannot be listed: Permission denied",
        r"Not served: empty, flat, half, keras, lost\+found, truncated; the lines above say why",
    ):
        assert len(re.findall(rf"^\[sluice\] {line}", running.log, re.M)) == 1, line

    (bad_models / "flat").rename(bad_models / ".flat")
    (bad_models / "flat").mkdir()
    (bad_models / ".flat").rename(bad_models / "flat/1")
    shutil.copy(bad_models / "digits/1" / PB, bad_models / "truncated/1")
    shutil.copytree(bad_models / "digits/1/variables", bad_models / "truncated/1/variables")
    for name in ("flat", "truncated"):
        running.wait_for(rf"\[sluice\] {name} version 1 is served\n")
        assert ask(f"{url}/{name}:predict").ok

    for words, name in (("gunicorn", "gateway"), ("service.modelserver", "model server")):
        running.child(words).kill()
        running.wait_for(f"The {name} ended by signal SIGKILL; it is started again in 1 s")
        running.wait_for(f"The {name} answers again")
    running.wait_until(lambda: ask(f"{url}/digits:predict").ok)

    family = running.family()
    while running.process.poll() is None:  # told once, and told again
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.003)
    assert running.process.returncode == 0
    assert "SIGTERM: stopping, once what was accepted is answered" in running.log
    assert not [each for each in family if is_alive(each)]


@pytest.mark.slow
def test_a_model_that_goes_on_loading_is_named_and_the_rest_is_served(up, repository, image):
    """As from a disk that does not answer: its warm-up requests are a pipe, and nobody writes."""
    shutil.copytree(repository / "digits", repository / "stuck")
    requests_file = repository / "stuck/1/assets.extra/tf_serving_warmup_requests"
    requests_file.unlink()
    os.mkfifo(requests_file)
    running = up(repository, ready=False)
    running.wait_for(r"\[sluice\] Not served: (digits, )?stuck; the lines above say why")
    running.wait_for(r"\[sluice\] digits version 1 is served\n")
    assert "[sluice] Loading stuck version 1\n" in running.log
    url = f"{running.url}/v1/models"
    ask = partial(requests.post, data=image, headers={"Content-Type": PNG}, timeout=30)
    running.wait_until(lambda: ask(f"{url}/digits:predict").ok)
    assert ask(f"{url}/stuck:predict").status_code == 503
    pipe = requests_file.rename(repository / "pipe")
    os.close(os.open(pipe, os.O_RDWR))
    running.wait_for(r"\[sluice\] stuck version 1 is served\n")
    running.wait_until(lambda: ask(f"{url}/stuck:predict").ok)


@pytest.mark.slow
def test_a_model_server_that_dies_three_times_ends_the_whole_with_its_last_words(up, tmp_path):
    running = up(tmp_path)
    family = running.family()
    for pause_s in (1, 2):
        running.child("service.modelserver").kill()
        running.wait_for(f"ended by signal SIGKILL; it is started again in {pause_s} s")
        running.wait_until(lambda: running.child("service.modelserver"))
    running.wait_for("(Running gRPC ModelServer(?s:.*)){2}")
    running.child("service.modelserver").kill()
    assert running.process.wait(60) == 1
    running.wait_for("The model server ended by signal SIGKILL; its last lines:")
    running.wait_for(r"\[sluice\]     .*Running gRPC ModelServer")
    running.wait_for("It has died 3 times within 60 s, .* and is not started any more")
    assert not [each for each in family if is_alive(each)]


def test_it_stops_at_once_while_it_starts(up, tmp_path):
    running = up(tmp_path, ready=False)
    running.wait_for("Starting the model server")
    assert running.stop() == 0
    assert "Starting the gateway" not in running.log


def test_a_terminal_that_is_closed_ends_it_in_order(up, tmp_path):
    terminal, its_end = pty.openpty()
    running = up(tmp_path, ready=False, terminal=its_end)
    os.close(its_end)
    shown = b""
    while b"No model is in" not in shown:
        shown += os.read(terminal, 1000)
    family = running.family()
    os.close(terminal)
    assert running.process.wait(60) == 0
    assert not [each for each in family if is_alive(each)]


def is_alive(process):
    """A zombie is not: an orphan's waits for whoever is process 1 here to notice."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@pytest.mark.slow
def test_with_trusted_keys_what_nobody_signed_is_named_and_not_served(
    up, repository, image, tmp_path
):
    private, trusted = key_pair(tmp_path, "ours")
    running = up(repository, ready=False, flags=[f"--trusted-keys={trusted}"])
    running.wait_for("digits/1 is not signed; sluice sign does that")
    running.wait_for("Not served: digits")
    SigningKey(private).sign(repository / "digits/1", "digits", 1)
    ask = partial(requests.post, f"{running.url}/v1/models/digits:predict", timeout=30)
    running.wait_until(lambda: ask(data=image, headers={"Content-Type": PNG}).ok)

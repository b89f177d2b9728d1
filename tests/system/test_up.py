"""`sluice up`: real processes, real signals, real load."""

import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import psutil
import pytest
import requests

from sluice import Client

SAMPLES = "1/samples/{}-0.png"
PNG = "image/png"


@pytest.fixture
def repository(published, tmp_path):
    """A model repository with version 1 of `digits`."""
    shutil.copytree(published, tmp_path / "digits")
    return tmp_path


@pytest.fixture
def image(published):
    return (published / SAMPLES.format(3)).read_bytes()


def test_a_repository_is_served_and_says_how(up, repository, published):
    running = up(repository)
    url = f"{running.url}/v1/models/digits"
    assert requests.get(f"{running.url}/readyz", timeout=10).json()["models"] == {
        "digits": "AVAILABLE"
    }
    for command in [
        line.split("] ", 1)[1].strip() for line in running.log.splitlines() if "curl" in line
    ]:
        answer = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, cwd=repository, check=True
        ).stdout
        assert "error" not in json.loads(answer), command
    right = 0
    for digit in range(10):
        file = (published / SAMPLES.format(digit)).read_bytes()
        raw = requests.post(f"{url}:predict", data=file, headers={"Content-Type": PNG}, timeout=10)
        form = requests.post(f"{url}:predict", files={"image": file}, timeout=10)
        assert raw.json() == form.json()
        right += raw.json()["predictions"][0]["label_classes"][0] == str(digit)
    assert right >= 8  # a few epochs only
    assert running.stop() == 0


def test_sigterm_under_load_loses_no_accepted_request(up, repository, image, load):
    running = up(repository)
    family = running.family()
    assert len(family) >= 3  # model server, gunicorn, workers
    clients = load(f"{running.url}/v1/models/digits:predict", image, PNG, clients=8, requests=200)
    clients.wait_until(60)
    running.process.send_signal(signal.SIGTERM)
    outcome = clients.finish()
    assert outcome["lost"] == []
    assert len(outcome["answered"]) >= 60
    assert len(outcome["answered"]) + len(outcome["refused"]) == 200
    assert running.process.wait(60) == 0
    assert not [each for each in family if is_alive(each)]


def test_a_kept_alive_connection_is_closed_in_order(up, repository, image):
    running = up(repository)
    connection = http.client.HTTPConnection("127.0.0.1", running.http_port, timeout=30)
    ask = ("POST", "/v1/models/digits:predict", image, {"Content-Type": PNG})
    connection.request(*ask)
    assert connection.getresponse().read()
    running.process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    connection.request(*ask)
    reply = connection.getresponse()
    assert (reply.status, reply.headers["Connection"]) == (200, "close")
    connection.close()


def test_a_new_version_takes_over_under_load(up, repository, image, load, tmp_path):
    running = up(repository)
    elsewhere = tmp_path / "elsewhere"
    train(elsewhere, "--epochs=1", "--set=seed=7")
    clients = load(f"{running.url}/v1/models/digits:predict", image, PNG, clients=4, requests=1500)
    clients.wait_until(100)
    shutil.copytree(elsewhere / "digits/1", repository / "digits/.publishing")
    (repository / "digits/.publishing").rename(repository / "digits/2")
    running.wait_for(r"Successfully (un)?loaded .*version: 2")
    outcome = clients.finish()
    assert outcome["lost"] == outcome["refused"] == []
    labels = np.array([answer["predictions"][0]["label"] for answer in outcome["answered"]])
    assert len(labels) == 1500
    # In company a request's last digit may be another.
    old, new = (np.isclose(labels, each, rtol=1e-4).all(axis=1) for each in (labels[0], labels[-1]))
    assert (old ^ new).all(), "the old version's answer, then the new one's"


def test_an_empty_repository_waits_for_its_first_model(up, tmp_path, published):
    running = up(tmp_path)
    assert requests.get(f"{running.url}/readyz", timeout=10).status_code in (200, 503)
    shutil.copytree(published, tmp_path / ".incoming")
    (tmp_path / ".incoming").rename(tmp_path / "digits")
    running.wait_for("Successfully loaded .*digits")
    deadline = time.monotonic() + 15
    while requests.get(f"{running.url}/v1/models/digits", timeout=10).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("words", "name"), [("service.modelserver", "model server"), ("gunicorn", "gateway")]
)
def test_a_child_that_dies_ends_the_whole_and_is_named(up, repository, words, name):
    running = up(repository)
    family = running.family()
    running.child(words).kill()
    assert running.process.wait(60) == 1
    running.wait_for(f"the {name} ended by signal SIGKILL; its last lines:")
    assert not [each for each in family if is_alive(each)]


def test_a_port_in_use_is_named_before_anything_starts(repository, free_port):
    with socket.create_server(("", free_port)):
        outcome = subprocess.run(
            [
                sys.executable,
                "-m",
                "service.cli",
                "up",
                f"--model-repository={repository}",
                f"--http-port={free_port}",
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert outcome.returncode == 1
    assert f"port {free_port} cannot be used" in outcome.stderr
    assert "--http-port" in outcome.stderr


def test_a_bad_setting_is_one_line():
    outcome = subprocess.run(
        [sys.executable, "-m", "service.cli", "gateway"],
        capture_output=True,
        text=True,
        env={"SLUICE_HTTP_PORT": "many"},
        timeout=60,
        check=False,
    )
    assert outcome.returncode == 1
    assert outcome.stderr == "Error: SLUICE_HTTP_PORT: expected int, got 'many'\n"


def test_it_knows_that_the_gateway_is_up_whatever_the_settings_close(up, tmp_path):
    running = up(tmp_path, SLUICE_HTTP_HOST="127.0.0.2", SLUICE_PUBLIC_HEALTH="off")
    url = f"http://127.0.0.2:{running.http_port}"
    assert requests.get(f"{url}/healthz", timeout=10).status_code == 404
    with Client(url) as client:
        assert client.models() == []
    assert "/v2/health/live" not in running.log


def test_metrics_answer_on_the_one_port_and_no_other_is_opened(up, repository, image):
    running = up(repository)
    url = f"{running.url}/v1/models/digits:predict"
    reply = requests.post(url, data=image, headers={"Content-Type": PNG}, timeout=30)
    assert reply.ok, reply.text + running.log
    metrics = requests.get(f"{running.url}/metrics", timeout=10)
    assert re.search(r'^sluice_requests_total{[^}]*model="digits"[^}]*} 1.0', metrics.text, re.M)
    listening = {
        connection.laddr.port
        for process in running.family()
        for connection in process.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {running.http_port, running.grpc_port}


def test_an_admin_port_is_opened_where_one_is_set(up, tmp_path, free_port):
    running = up(tmp_path, SLUICE_ADMIN_PORT=str(free_port), SLUICE_PUBLIC_METRICS="off")
    running.wait_for("Answering HTTP")
    assert requests.get(f"http://127.0.0.1:{free_port}/metrics", timeout=10).ok
    assert requests.get(f"{running.url}/metrics", timeout=10).status_code == 404


@pytest.mark.parametrize("name", ["admin_port", "grpc_port"])
def test_another_port_of_the_gateways_that_is_in_use_is_named(launch_gateway, free_port, name):
    with socket.create_server(("0.0.0.0", free_port)), pytest.raises(AssertionError) as caught:
        launch_gateway("127.0.0.1:1", **{name: free_port})
    assert f"SLUICE_{name.upper()}: port {free_port} cannot be used" in str(caught.value)


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


def is_alive(process):
    """A zombie is not: an orphan's waits for whoever is process 1 here to notice."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def train(repository, *options):
    subprocess.run(
        [
            sys.executable,
            "-m",
            "service.cli",
            "train",
            "digits",
            f"--model-repository={repository}",
            *options,
        ],
        check=True,
        capture_output=True,
    )

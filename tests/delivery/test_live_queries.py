"""Every query of the dashboard, the alerts and the autoscalers, asked of a real Prometheus that
scrapes a running `sluice up` under load: what is healthy is to show figures, not gaps."""

import itertools
import json
import math
import re
import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import requests
import yaml

from tests.processes import START_TIMEOUT_S, free_port, leashed
from tests.up import READY, Up

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPONENTS = DEPLOY / "kubernetes/components"
RULES = DEPLOY / "prometheus/rules.yml"
CLIENTS = 8
RATE_INTERVAL = "10s"  # Grafana's $__rate_interval, of a scrape a second
SELECTOR = re.compile(r"(?<![\w:])((?:sluice_|namespace:|:tensorflow:|up\{)[^\s()\[\]]*)")

# What has no series before the first time that it is counted, and why there was none.
QUIET = {
    "Turned away A": "nobody was turned away",
    "Turned away B": "nobody was turned away",
    "Turned away C": "no connection was closed on its client",
    "Calls without an answer A": "every call was answered",
    "Ejections A": "no server was ejected",
    "Loads that failed A": "every version loaded",
    "Answered by the next version A": "nothing is rolled out",
    "Asked of the next version, for nobody A": "nothing is rolled out",
    "What is answered otherwise": "nothing is rolled out",
    "sluice_rollout{": "nothing is rolled out",
    "sluice_refused_total": "nobody was turned away",
    "sluice_requests_total{status=": "no answer was an error",
    "namespace:sluice_errors": "no answer was an error",
    "sluice_ejections_total": "no server was ejected",
    'sluice_model_version_state{state="FAILED"}': "every version loaded",
}

pytestmark = [pytest.mark.slow, pytest.mark.root]  # to install Prometheus


def dashboard():
    """Query by panel and letter."""
    board = json.loads((COMPONENTS / "monitoring/sluice-dashboard.json").read_text())
    return {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in board["panels"]
        for target in panel.get("targets", [])
    }


def scaling():
    """Query by autoscaler and trigger; of the HPA, the metric that it takes from the pods."""
    queries = {}
    for file in ("gateway", "modelserver"):
        spec = yaml.safe_load((COMPONENTS / f"autoscaling/{file}.yaml").read_text())["spec"]
        for metric in spec.get("metrics", []):
            if metric["type"] == "Pods":
                queries[f"HPA {file}"] = metric["pods"]["metric"]["name"]
        for trigger in spec.get("triggers", []):
            queries[f"KEDA {trigger['name']}"] = trigger["metadata"]["query"]
    return queries


def rules():
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def selected():
    """The series that rules and alerts read, each as a query of its own name."""
    texts = {each for rule in rules() for each in SELECTOR.findall(rule["expr"])}
    return {each: each for each in texts | {rule["record"] for rule in rules() if "record" in rule}}


@pytest.fixture(scope="module")
def stack(published):
    """Addresses of metrics by job, of a `sluice up` that is asked all the while."""
    metrics_port, admin_port = free_port(), free_port()
    running = Up(
        published.parent,
        flags=[f"--metrics-port={metrics_port}"],
        SLUICE_ADMIN_PORT=str(admin_port),
        SLUICE_MAX_WAIT_S="60",  # a machine that stands still for a while turns nobody away
    )
    ended = threading.Event()
    try:
        running.wait_for(READY)
        with ThreadPoolExecutor(CLIENTS) as clients:
            asked = [clients.submit(ask_on, running.url, published, ended) for _ in range(CLIENTS)]
            try:
                yield {
                    "gateway": f"127.0.0.1:{admin_port}",
                    "modelserver": f"127.0.0.1:{metrics_port}",
                }
            finally:
                ended.set()
        assert not [each.exception() for each in asked if each.exception()]
    finally:
        running.stop()


def ask_on(url, published, ended):
    """A picture, its numbers in both dialects, over and over."""
    png = (published / "1/samples/3-0.png").read_bytes()
    numbers = np.zeros((1, 8, 8, 1)).tolist()
    tensor = {"name": "image", "shape": [1, 8, 8, 1], "datatype": "FP32", "data": numbers}
    questions = [
        ("/v1/models/digits:predict", {"data": png, "headers": {"Content-Type": "image/png"}}),
        ("/v1/models/digits:predict", {"json": {"instances": numbers}}),
        ("/v2/models/digits/infer", {"json": {"inputs": [tensor]}}),
    ]
    with requests.Session() as session:
        for path, body in itertools.cycle(questions):
            if ended.wait(0.05):
                return
            session.post(f"{url}{path}", timeout=60, **body).raise_for_status()


@pytest.fixture(scope="module")
def ask(stack, tmp_path_factory):
    """`ask(query)` -> its values now, as Prometheus has them."""
    assert shutil.which("prometheus"), "apt-get install prometheus"
    folder, address = tmp_path_factory.mktemp("prometheus"), f"127.0.0.1:{free_port()}"
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(RULES)]
    for job in config["scrape_configs"]:
        labels = {"namespace": "sluice", "pod": f"{job['job_name']}-0"}  # as an operator gives
        job["static_configs"] = [{"targets": [stack[job["job_name"]]], "labels": labels}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = leashed(
        "prometheus",
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={address}",
        "--log.level=warn",
    )

    def query(text):
        reply = requests.get(
            f"http://{address}/api/v1/query",
            {"query": text.replace("$__rate_interval", RATE_INTERVAL)},
            timeout=60,
        ).json()
        assert reply["status"] == "success", f"{text}: {reply}"
        values = [float(each["value"][1]) for each in reply["data"]["result"]]
        return [each for each in values if math.isfinite(each)]

    with (folder / "log").open("w") as log, subprocess.Popen(command, stderr=log) as prometheus:
        wait_for(lambda: answers(f"http://{address}/-/ready"))
        yield query
        prometheus.terminate()


def answers(url):
    try:
        return requests.get(url, timeout=30).ok
    except requests.ConnectionError:
        return False


def wait_for(condition, what=""):
    deadline = time.monotonic() + START_TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def is_quiet(name):
    return any(name.startswith(each) for each in QUIET)


def test_every_query_has_a_value_where_all_is_well(ask):
    queries = dashboard() | scaling() | selected()
    told = {name: text for name, text in queries.items() if not is_quiet(name)}
    with_patience = time.monotonic() + 60
    while empty := [name for name, text in told.items() if not ask(text)]:
        if time.monotonic() > with_patience:
            break
        time.sleep(0.5)
    for name, text in queries.items():
        print(f"{name:<60} {[round(each, 4) for each in ask(text)[:4]] or 'empty'}")
    assert not empty
    spoken = [name for name, text in queries.items() if is_quiet(name) and ask(text)]
    assert not spoken, "an excuse that nothing needs"
    assert all(any(name.startswith(each) for name in queries) for each in QUIET)


def test_no_alert_is_raised_where_all_is_well(ask):
    """But for a moment: who waits while the machine stands still is soon few among many."""
    wait_for(lambda: ask('up{job="gateway"} == 1') and ask('up{job="modelserver"} == 1'))
    for rule in rules():
        if "alert" in rule:
            wait_for(lambda expr=rule["expr"]: not ask(expr), rule["alert"])

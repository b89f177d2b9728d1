"""The units for one machine: what systemd says of them, and their own command lines, replaced under
load as its page tells to replace them."""

import asyncio
import json
import os
import re
import shlex
import shutil
import subprocess
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import requests
import yaml

from service.modelserver.command_line import parse
from sluice import AsyncClient, ClientError
from tests.delivery.one_machine import BASE, UNITS, Machine, environment, setting
from tests.processes import START_TIMEOUT_S
from tests.system.load import Client, Question

ROOT = Path(__file__).parents[2]
IMAGE = np.zeros((1, 8, 8, 1), np.float32)


@pytest.fixture
def analyze(tmp_path):
    """`analyze(*arguments)` -> what systemd-analyze says beside the units, whose programs are
    there."""
    assert shutil.which("systemd-analyze"), "apt-get install systemd"
    for unit in UNITS.glob("sluice-*"):
        text = re.sub(r"/opt/sluice/bin/\w+", "/bin/true", unit.read_text())
        (tmp_path / unit.name).write_text(text)

    def run(*arguments):
        outcome = subprocess.run(
            ["systemd-analyze", *arguments],
            cwd=tmp_path,
            env=os.environ | {"SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr
        return outcome.stdout + outcome.stderr

    return run


@pytest.mark.root
def test_systemd_understands_every_line(analyze):
    names = ["sluice-gateway.socket", "sluice-gateway.service", "sluice-modelserver@850.service"]
    assert analyze("verify", "--man=no", *(f"./{each}" for each in names)) == ""


@pytest.mark.root
def test_systemd_understands_the_pages_way_to_hand_over_keys(analyze, tmp_path):
    page = (ROOT / "docs/operations.md").read_text()
    (drop_in,) = re.findall(r"```ini\n(\[Service\]\nLoadCredential.*?)```", page, re.S)
    (tmp_path / "sluice-gateway.service.d").mkdir()
    (tmp_path / "sluice-gateway.service.d/access.conf").write_text(drop_in)
    assert analyze("verify", "--man=no", "./sluice-gateway.service") == ""
    (name,) = re.findall("LoadCredential=(.*):", drop_in)
    assert f"SLUICE_ACCESS_FILE=/run/credentials/sluice-gateway.service/{name}\n" in page


@pytest.mark.parametrize("unit", ["sluice-gateway.service", "sluice-modelserver@.service"])
def test_a_unit_never_gives_up(unit):
    assert setting(unit, "Service", "Restart") == ["always"]
    assert setting(unit, "Unit", "StartLimitIntervalSec") == ["0"]


@pytest.mark.root
@pytest.mark.parametrize("unit", ["sluice-gateway.service", "sluice-modelserver@.service"])
def test_the_units_may_do_little(analyze, unit):
    """At most 1.5 by systemd's own sum, which is 9.6 for a service that says nothing of this."""
    analyze("security", "--offline=true", "--threshold=15", "--no-pager", f"./{unit}")


def test_the_model_server_has_kubernetes_flags_memory_and_none_of_its_reach():
    (pod,) = [
        each["spec"]["template"]["spec"]
        for each in yaml.safe_load_all((BASE / "modelserver.yaml").read_text())
        if each["kind"] == "Deployment"
    ]
    (container,) = pod["containers"]
    (line,) = setting("sluice-modelserver@.service", "Service", "ExecStart", "850")
    here, _ = parse(shlex.split(line)[2:])
    there, _ = parse(container["args"])
    for name in (
        "model_config_file",
        "model_config_file_poll_wait_seconds",
        "allow_version_labels_for_unavailable_models",
        "grpc_max_threads",
        "enable_batching",
    ):
        assert getattr(here, name) == getattr(there, name), name
    assert (here.bind_address, here.allow_reload_config) == ("127.0.0.1", False)
    (memory,) = setting("sluice-modelserver@.service", "Service", "MemoryMax")
    assert f"{memory}i" == container["resources"]["limits"]["memory"]


def test_the_gateway_finds_the_model_servers_that_it_wants():
    wanted = re.findall(
        r"sluice-modelserver@(\d+)", setting("sluice-gateway.service", "Unit", "Wants")[0]
    )
    assert environment()["SLUICE_MODEL_SERVER"] == ",".join(f"127.0.0.1:{each}0" for each in wanted)
    (grace_s,) = setting("sluice-gateway.service", "Service", "TimeoutStopSec")
    assert int(grace_s) > int(environment()["SLUICE_DRAIN_TIMEOUT_S"])


@pytest.fixture
def machine(published, tmp_path):
    machine = Machine(published.parent, tmp_path)
    yield machine
    machine.kill()


def is_ready(machine):
    try:
        return requests.get(f"http://127.0.0.1:{machine.admin_port}/readyz", timeout=30).ok
    except requests.ConnectionError:
        return False


async def ask_over_http(doing, question):
    """What became of those who asked meanwhile, each on a connection of its own."""
    outcomes = []
    while not doing.done():
        client = Client(question)
        outcomes.append(await client.ask())
        client.close()
        await asyncio.sleep(0.02)
    return outcomes


async def ask_over_grpc(doing, port):
    """Why each of a client's requests failed, "" where it did not. It tries again for as long as it
    takes: the port is the gateway's own, and nobody's while that is replaced."""
    failures = []
    address = f"grpc://127.0.0.1:{port}"
    async with AsyncClient(address, retries=1000, timeout_s=START_TIMEOUT_S) as client:
        while not doing.done():
            try:
                await client.predict("digits", IMAGE)
                failures.append("")
            except ClientError as error:
                failures.append(repr(error))
            await asyncio.sleep(0.02)
    return failures


async def asked_during(deed, machine):
    """(outcomes over HTTP, failures over gRPC)"""
    doing = asyncio.create_task(asyncio.to_thread(deed))
    body = json.dumps({"instances": IMAGE.tolist()}).encode()
    question = Question(machine.port, "/v1/models/digits:predict", body)
    asked = await asyncio.gather(
        ask_over_http(doing, question), ask_over_grpc(doing, machine.grpc_port)
    )
    await doing
    return asked


@pytest.mark.slow
def test_an_upgrade_of_everything_and_the_way_back_fail_nobody(machine):
    def wait_until_ready():
        while not is_ready(machine):
            time.sleep(0.1)

    def change_to(release):
        """As the page tells, the one way as the other."""
        machine.lead_to(release)
        for instance in machine.instances:
            machine.restart("sluice-modelserver@.service", instance)
        machine.restart("sluice-gateway.service")
        wait_until_ready()

    async def there_and_back():
        for release in ("sluice-new", "sluice-old"):
            over_http, over_grpc = await asked_during(partial(change_to, release), machine)
            assert machine.releases() == {release}
            assert not [each for each in over_http if not each.right]
            assert not [each for each in over_grpc if each]
            assert min(len(over_http), len(over_grpc)) > 100

    machine.install("sluice-old")
    machine.install("sluice-new")
    machine.lead_to("sluice-old")
    for instance in machine.instances:
        machine.start("sluice-modelserver@.service", instance)
    machine.start("sluice-gateway.service")
    wait_until_ready()
    # In one loop, whose threads stay: a leash ends its process with the thread that began it.
    asyncio.run(there_and_back())

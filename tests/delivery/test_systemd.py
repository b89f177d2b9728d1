"""The units for one machine: what systemd says of them, and their own command lines, replaced under
load as its page tells to replace them."""

import asyncio
import configparser
import itertools
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import requests
import yaml

from service.modelserver.command_line import parse
from tests.processes import START_TIMEOUT_S, free_port, leashed
from tests.system.load import Client, Question

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "deploy/systemd"
BASE = ROOT / "deploy/kubernetes/base"
INSTALLED = {
    "/opt/sluice/bin/sluice": [sys.executable, "-P", "-m", "service.cli"],
    "/opt/sluice/bin/python": [sys.executable, "-P"],
}
# As systemd gives a socket: as descriptor 3, to the process of this id.
ACTIVATE = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); "
    "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid())); "
    "os.execv(sys.argv[2], sys.argv[2:])"
)


def setting(unit, section, name, instance=""):
    """The values that a unit gives it, in order."""
    text = (UNITS / unit).read_text().replace("\\\n", " ")
    _, _, after = text.partition(f"[{section}]\n")
    lines = re.findall(rf"^{name}=(.*)$", after.partition("\n[")[0], re.M)
    return [line.replace("%i", instance) for line in lines]


def environment():
    """What both files of the gateway's unit say, the later one's where they differ."""
    files = setting("sluice-gateway.service", "Service", "EnvironmentFile")
    sources = [BASE if each.startswith("/etc/sluice/models/") else UNITS for each in files]
    values = configparser.RawConfigParser()
    values.optionxform = str
    for source, file in zip(sources, files, strict=True):
        values.read_string("[all]\n" + (source / Path(file).name).read_text())
    return dict(values["all"])


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


class Machine:
    """The units' commands as processes, with their files in `folder`."""

    def __init__(self, models, folder):
        self._folder = folder
        (folder / "models").mkdir()
        for file in BASE.glob("*.config"):
            text = file.read_text().replace("/models/", f"{models}/")
            (folder / "models" / file.name).write_text(text)
        # A model server's two ports are the instance's digits with 0 and 1, drawn one by one.
        ends_in_1 = (port for port in iter(free_port, None) if port % 10 == 1)
        self.instances = [str(port // 10) for port in itertools.islice(ends_in_1, 2)]
        self.admin_port = free_port()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._running = {}

    def start(self, unit, instance=""):
        """As `systemctl start`: until ExecStartPost has ended."""
        command = self._command(setting(unit, "Service", "ExecStart", instance)[0])
        if unit == "sluice-gateway.service":
            command = [sys.executable, "-c", ACTIVATE, str(self._listening.fileno()), *command]
        with (self._folder / f"{unit}{instance}.log").open("a") as log:
            self._running[unit, instance] = subprocess.Popen(
                leashed(*command),
                env=self._environment(),
                stdout=log,
                stderr=log,
                pass_fds=[self._listening.fileno()],
            )
        for post in setting(unit, "Service", "ExecStartPost", instance):
            command = self._command(post)
            subprocess.run(command, env=self._environment(), check=True, timeout=START_TIMEOUT_S)

    def restart(self, unit, instance=""):
        self.stop(unit, instance)
        self.start(unit, instance)

    def stop(self, unit, instance=""):
        running = self._running.pop((unit, instance))
        running.terminate()
        (within_s,) = setting(unit, "Service", "TimeoutStopSec")
        assert running.wait(int(within_s)) == 0

    def kill(self):
        for each in self._running.values():
            each.kill()
            each.wait()
        self._listening.close()

    def _command(self, line):
        program, *arguments = shlex.split(line.replace("/etc/sluice/", f"{self._folder}/"))
        return [*INSTALLED[program], *arguments]

    def _environment(self):
        kept = {each: os.environ[each] for each in ("PATH", "PYTHONPATH") if each in os.environ}
        given = environment() | {
            "SLUICE_MODEL_SERVER": ",".join(f"127.0.0.1:{each}0" for each in self.instances),
            "SLUICE_ADMIN_PORT": str(self.admin_port),
            "SLUICE_GRPC_PORT": str(free_port()),
            "SLUICE_MAX_WAIT_S": "20",  # a machine that starts model servers meanwhile
        }
        moved = {
            name: value.replace("/etc/sluice/", f"{self._folder}/") for name, value in given.items()
        }
        return kept | moved


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


async def asked_during(deed, question):
    """What became of those who asked meanwhile, each on a connection of its own."""
    doing = asyncio.create_task(asyncio.to_thread(deed))
    outcomes = []
    while not doing.done():
        client = Client(question)
        outcomes.append(await client.ask())
        client.close()
        await asyncio.sleep(0.02)
    await doing
    return outcomes


@pytest.mark.slow
def test_an_upgrade_of_everything_fails_nobody(machine):
    def wait_until_ready():
        while not is_ready(machine):
            time.sleep(0.1)

    def upgrade():
        for instance in machine.instances:
            machine.restart("sluice-modelserver@.service", instance)
        machine.restart("sluice-gateway.service")
        wait_until_ready()

    for instance in machine.instances:
        machine.start("sluice-modelserver@.service", instance)
    machine.start("sluice-gateway.service")
    wait_until_ready()
    body = json.dumps({"instances": np.zeros((1, 8, 8, 1)).tolist()}).encode()
    question = Question(machine.port, "/v1/models/digits:predict", body)
    outcomes = asyncio.run(asked_during(upgrade, question))
    assert not [each for each in outcomes if not each.right]
    assert len(outcomes) > 100

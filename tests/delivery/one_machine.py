"""The units for one machine as processes: their own command lines, in a folder in place of /etc and
/opt."""

import configparser
import itertools
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import psutil

from tests.processes import START_TIMEOUT_S, free_port, leashed

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "deploy/systemd"
BASE = ROOT / "deploy/kubernetes/base"
# What a release has in its bin/, which leaves its name with what it begins.
PROGRAMS = {"sluice": ["-P", "-m", "service.cli"], "python": ["-P"]}
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
        self.admin_port, self.grpc_port = free_port(), free_port()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._running = {}

    def install(self, release):
        """A release of this name, which is this checkout."""
        programs = self._folder / "opt" / release / "bin"
        programs.mkdir(parents=True)
        for name, arguments in PROGRAMS.items():
            command = shlex.join([sys.executable, *arguments])
            text = f'#!/bin/sh\nexport RELEASE={release}\nexec {command} "$@"\n'
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)

    def lead_to(self, release):
        """Have `/opt/sluice` lead there, as the page does."""
        subprocess.run(["ln", "-sfn", release, self._folder / "opt/sluice"], check=True)

    def releases(self):
        """Those that run."""
        running = [psutil.Process(each.pid) for each in self._running.values()]
        return {each.environ()["RELEASE"] for each in running}

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
        line = line.replace("/etc/sluice/", f"{self._folder}/")
        return shlex.split(line.replace("/opt/", f"{self._folder}/opt/"))

    def _environment(self):
        kept = {each: os.environ[each] for each in ("PATH", "PYTHONPATH") if each in os.environ}
        given = environment() | {
            "SLUICE_MODEL_SERVER": ",".join(f"127.0.0.1:{each}0" for each in self.instances),
            "SLUICE_ADMIN_PORT": str(self.admin_port),
            "SLUICE_GRPC_PORT": str(self.grpc_port),
            "SLUICE_MAX_WAIT_S": "20",  # a machine that starts model servers meanwhile
        }
        moved = {
            name: value.replace("/etc/sluice/", f"{self._folder}/") for name, value in given.items()
        }
        return kept | moved

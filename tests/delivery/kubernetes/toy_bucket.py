"""A bucket for the scripts of deploy/kubernetes/bucket: rclone's own S3 server, and the folder
behind it. What is changed in the folder itself it sees a second later."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from service.rollout.evidence import evidence_directory
from sluice.wire.rollout_files import read_rollout
from sluice.wire.rollouts import Rollout
from tests.gateway.rollouts import eventually
from tests.processes import free_port, leashed

SCRIPTS = Path(__file__).parents[3] / "deploy/kubernetes/bucket"


def version(directory: Path, number: int, text: str = "graph", model: str = "digits") -> Path:
    """A version as a model server would find it, in `directory`."""
    where = directory / model / str(number)
    (where / "variables").mkdir(parents=True)
    (where / "variables" / "variables.index").write_text(text)
    (where / "saved_model.pb").write_text(text)
    return where


@contextmanager
def serving(rclone: Path, folder: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """(the models' folder in the bucket, the variables that lead rclone to it)"""
    (folder / "bucket").mkdir(parents=True)
    port = free_port()
    flags = ["--auth-key=key,secret", "--vfs-cache-mode=off", "--dir-cache-time=1s"]
    server = subprocess.Popen(
        leashed(str(rclone), "serve", "s3", *flags, f"--addr=127.0.0.1:{port}", str(folder)),
        env=os.environ | {"RCLONE_CONFIG": "/dev/null"},
        stderr=subprocess.DEVNULL,
    )
    eventually(lambda: _listens(port))
    yield (
        folder / "bucket" / "models",
        {
            "MODEL_STORE": "store:bucket/models",
            "RCLONE_CONFIG_STORE_TYPE": "s3",
            "RCLONE_CONFIG_STORE_PROVIDER": "Rclone",
            "RCLONE_CONFIG_STORE_REGION": "us-east-1",
            "RCLONE_CONFIG_STORE_ENDPOINT": f"http://127.0.0.1:{port}",
            "RCLONE_CONFIG_STORE_ACCESS_KEY_ID": "key",
            "RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY": "secret",
        },
    )
    server.terminate()
    server.wait(20)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Place:
    """A directory, and rollouts.sh between it and the bucket.

    Of what is named beside the words, capitals are variables, and in small letters is a shell
    script that stands for the program of that name, which it finds as `$real`.
    """

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        directory.mkdir()
        self.directory, self.model = directory, directory / "digits"
        self._environment = environment | {"MODELS": str(directory)}
        self._started: list[subprocess.Popen[str]] = []

    @property
    def rollout(self) -> Rollout | None:
        return read_rollout(self.model)

    @property
    def evidence(self) -> Path:
        """The folder of its rollout's."""
        assert self.rollout is not None
        return evidence_directory(self.model, self.rollout.id)

    def fetch(self) -> None:
        """What a gateway brings and takes up."""
        done = self.run("fetch")
        assert done.returncode == 0, done.stderr

    def sluice(self, *words: object) -> str:
        """What `sluice rollout` of these words says, which goes well."""
        done = self.run("rollout", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def run(
        self, *words: object, script: str = "rollouts.sh", **others: str
    ) -> subprocess.CompletedProcess[str]:
        process = self._begin(script, words, others, subprocess.PIPE)
        stdout, stderr = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def start(self, *words: object, **others: str) -> subprocess.Popen[str]:
        """A running one: the first of a group of processes."""
        return self._begin("rollouts.sh", words, others, subprocess.STDOUT)

    def end(self) -> None:
        """Of what was started, all that is left."""
        for process in self._started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream:
                    stream.close()

    def _begin(
        self, script: str, words: tuple[object, ...], others: dict[str, str], stderr: int
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["sh", str(SCRIPTS / script), *map(str, words)],
            env=self._with(others),
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def _with(self, others: dict[str, str]) -> dict[str, str]:
        found = dict(self._environment)
        for name, value in others.items():
            if name.isupper():
                found[name] = value
            else:
                folder = Path(tempfile.mkdtemp(dir=self.directory.parent))
                real = shutil.which(name, path=found["PATH"])
                (folder / name).write_text(f"#!/bin/sh\nreal={real}\n{value}\n")
                (folder / name).chmod(0o755)
                found["PATH"] = f"{folder}:{found['PATH']}"
        return found

"""buildah and podman as the tests drive them: an engine with images, and the containers it runs."""

import hashlib
import json
import os
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.delivery.layouts import name_in

ROOT = Path(__file__).parents[2]
# What deploy/compose.yaml and Kubernetes allow a container to do.
LOCKED = (
    "--read-only",
    "--read-only-tmpfs=false",
    "--tmpfs=/tmp",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
)
# As the official slim images leave documentation out.
NO_DOCUMENTATION = [
    f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")
]


class Engine:
    """buildah and podman with a store of their own in `directory`; the next session finds there
    what this one has built."""

    def __init__(self, directory: Path) -> None:
        # podman takes no more than 50 characters for this one.
        running = Path("/run") / f"sluice-{hashlib.sha256(bytes(directory)).hexdigest()[:12]}"
        (directory / "storage.conf").write_text(
            f'[storage]\ndriver="overlay"\nrunroot="{running}"\ngraphroot="{directory}/graph"\n'
        )
        # What a machine without systemd, bridges or high limits can do.
        (directory / "containers.conf").write_text(
            '[containers]\ndefault_ulimits=["nofile=1024:1024","nproc=4096:4096"]\n'
            'netns="host"\nlog_driver="k8s-file"\n'
            '[engine]\nruntime="runc"\ncgroup_manager="cgroupfs"\nevents_logger="file"\n'
        )
        self.environment = os.environ | {
            "CONTAINERS_STORAGE_CONF": str(directory / "storage.conf"),
            "CONTAINERS_CONF": str(directory / "containers.conf"),
            "BUILDAH_ISOLATION": "chroot",
        }

    def run(self, *command: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        outcome = subprocess.run(
            [str(each) for each in command],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert outcome.returncode == 0 or not check, outcome.stdout + outcome.stderr
        return outcome

    def image(self, name: str) -> dict[str, Any]:
        (description,) = json.loads(self.run("podman", "image", "inspect", name).stdout)
        return description

    def push(self, image: str, layout: Path) -> str:
        """The digest of what a registry would be sent of it in OCI's format, which is written to
        `layout` as `1`."""
        self.run("podman", "push", "--quiet", "--format=oci", image, f"oci:{layout}:1")
        return name_in(layout)["digest"]

    @contextmanager
    def mounted(self, image: str) -> Iterator[Path]:
        """Its root, read-only."""
        root = self.run("podman", "image", "mount", image).stdout.strip()
        try:
            yield Path(root)
        finally:
            self.run("podman", "image", "unmount", image)

    def import_system(self, *packages: str, architecture: str = "") -> str:
        """The name of an image of Debian's minimum and `packages`, for this machine where no other
        architecture is named."""
        command = [
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            *([f"--architectures={architecture}"] if architecture else []),
            *NO_DOCUMENTATION,
            # The hook spares the image perl, which the package usrmerge would need.
            "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
            f"--include={','.join(packages)}",
            "bookworm",
        ]
        name = f"localhost/system:{hashlib.sha256(' '.join(command).encode()).hexdigest()[:12]}"
        if self.run("podman", "image", "exists", name, check=False).returncode:
            with tempfile.TemporaryDirectory() as folder:
                self.run(*command, f"{folder}/system.tar")
                named = [f"--arch={architecture}"] if architecture else []
                self.run("podman", "import", *named, f"{folder}/system.tar", name)
        return name


class Container:
    """A container that runs in the host's network, until `stop`."""

    def __init__(self, engine: Engine, image: str, *arguments: object, options: tuple = ()) -> None:
        self._engine, self.name = engine, f"sluice-{uuid.uuid4().hex[:12]}"
        engine.run(
            "podman",
            "run",
            "--detach",
            "--name",
            self.name,
            "--network=host",
            "--no-healthcheck",
            *options,
            image,
            *arguments,
        )

    def execute(self, *command: object, **environment: object) -> subprocess.CompletedProcess[str]:
        given = [f"--env={name}={value}" for name, value in environment.items()]
        return self._engine.run("podman", "exec", *given, self.name, *command, check=False)

    def python(self, program: str) -> str:
        outcome = self.execute("python", "-c", program)
        assert outcome.returncode == 0, outcome.stderr
        return outcome.stdout.strip()

    def log(self) -> str:
        outcome = self._engine.run("podman", "logs", self.name)
        return outcome.stdout + outcome.stderr

    def runs(self) -> bool:
        return self._state("Running") == "true"

    def wait_for(self, condition: Callable[[], object], timeout_s: float = 120) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert self.runs() and time.monotonic() < deadline, self.log()
            time.sleep(0.2)

    def stop(self, within_s: int = 60) -> int:
        """SIGTERM, and the exit status; that of SIGKILL after `within_s` seconds."""
        self._engine.run("podman", "stop", f"--time={within_s}", self.name)
        return int(self._state("ExitCode"))

    def wait(self) -> int:
        """The exit status, once it has ended by itself."""
        return int(self._engine.run("podman", "wait", self.name).stdout)

    def remove(self) -> None:
        self._engine.run("podman", "rm", "--force", "--time=0", self.name)

    def _state(self, field: str) -> str:
        return self._engine.run(
            "podman", "inspect", "--format", f"{{{{.State.{field}}}}}", self.name
        ).stdout.strip()

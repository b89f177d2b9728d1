"""What several suites need: the recorded models, model servers and gateways, and their order."""

import functools
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from tests.choosing import COLLECTED, can_choose
from tests.making import alone, make_once
from tests.processes import (
    RUNNING,
    WAYS,
    GatewayProcess,
    ModelServerProcess,
    free_port,
)

if TYPE_CHECKING:
    from selenium import webdriver

# How long an example takes is the machine's affair: no test asserts a time (CONTRIBUTING.md).
settings.register_profile("sluice", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("sluice")

TESTS = Path(__file__).parent
CONFORMANCE = TESTS / "conformance"
# A file is one worker's. Those whose tests take longest come first, so that none is begun when all
# others are done and is waited for.
LONGEST_FIRST = (
    "training/test_recipes.py",
    "training/test_devices.py",
    "delivery/kubernetes/test_rehearsal.py",
    "gateway/test_joined_equals_lone.py",
    "gateway/test_hostile_http.py",
    "replay/test_replay.py",
    "test_docs.py",
    "system",
    "training",
    "modelserver",
    "models",
    "pictures",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--soak-minutes",
        type=float,
        default=30,
        help="how long make test-load asks and changes all",
    )
    parser.addoption(
        "--write-pictures", action="store_true", help="write the pictures of docs/images anew"
    )
    parser.addoption(
        "--write-docs", action="store_true", help="write what tests measure into docs/ anew"
    )


def pytest_configure() -> None:
    """What nohup, or a script's `&`, has a process ignore, its children would ignore as well."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Whole, what failed and passed when it was run again (.ci/run): that is a fault too."""
    for report in terminalreporter.getreports("rerun"):
        terminalreporter.write_sep("_", f"failed at first: {report.nodeid}", yellow=True)
        terminalreporter.write_line(report.longreprtext)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than the cores: where tests wait for processes, another's have a core."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from tests.sharing_out import ByFile  # pytest-xdist may not be there

    return ByFile(config, log)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What -m chooses no test of is not imported, which takes half a minute of all the files."""
    asked, is_file = config.option.markexpr, collection_path.suffix == ".py"
    return True if asked and is_file and not can_choose(asked, collection_path) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.stash[COLLECTED] = [*items]

    def rank(item: pytest.Item) -> int:
        path = item.path.relative_to(TESTS)
        places = [place for place, name in enumerate(LONGEST_FIRST) if path.is_relative_to(name)]
        return places[0] if places else len(LONGEST_FIRST)

    items.sort(key=rank)


LaunchModelServer = Callable[..., ModelServerProcess]


@pytest.fixture(scope="session")
def launch_modelserver() -> Iterator[LaunchModelServer]:
    """`launch_modelserver(*flags, ready=True, within=())` -> a ModelServerProcess, ended with the
    session."""
    launched = []

    def launch(*flags: str, ready: bool = True, within: Sequence[str] = ()) -> ModelServerProcess:
        server = ModelServerProcess(*flags, within=within)
        launched.append(server)
        if ready:
            server.wait_for(RUNNING.pattern)
        return server

    yield launch
    for server in launched:
        if server.process.poll() is None:
            server.process.kill()
            server.wait()


MadeOnce = Callable[[str, Sequence[object]], Path]


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """`made_once(name, command)` -> the directory that `python *command directory` fills, for all
    workers: the first to ask makes it while the others wait. It is not to be written to.

    SLUICE_TESTS_MADE names the directory of these, for several runs of one checkout.
    """
    base = tmp_path_factory.getbasetemp()
    own = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    place = Path(os.environ.get("SLUICE_TESTS_MADE") or own)
    place.mkdir(parents=True, exist_ok=True)
    return functools.partial(make_once, place)


@pytest.fixture(scope="session")
def conformance_models(made_once: MadeOnce) -> Path:
    """The models that the exchanges in conformance/ were recorded with, and models.config."""
    return made_once("conformance-models", [CONFORMANCE / "make_models.py"])


@pytest.fixture(scope="session")
def gateway_models(made_once: MadeOnce) -> Path:
    """The models of gateway/make_models.py."""
    return made_once("gateway-models", [TESTS / "gateway" / "make_models.py"])


@pytest.fixture(scope="session")
def modelserver(
    launch_modelserver: LaunchModelServer, conformance_models: Path
) -> ModelServerProcess:
    """The twin as the real server was started for the recording."""
    return launch_modelserver(
        f"--model_config_file={conformance_models}/models.config",
        "--allow_version_labels_for_unavailable_models=true",
        "--check_input_shapes=false",  # as there is no such check there
    )


LaunchGateway = Callable[..., GatewayProcess]


@pytest.fixture(scope="session")
def launch_gateway() -> Iterator[LaunchGateway]:
    """`launch_gateway(model_server_address, way="front", **settings)` -> a GatewayProcess, up and
    ready; `way` is one of WAYS. It refuses nobody because a process beside it stands still."""
    launched = []

    def launch(model_server: str, way: str = "front", **settings: object) -> GatewayProcess:
        defaults = {"workers": 1, "admin_port": 0, "public_metrics": "on", "max_wait_s": 60}
        gateway = WAYS[way](model_server, **defaults | settings)
        launched.append(gateway)
        gateway.wait_for(gateway.up)
        return gateway

    yield launch
    for gateway in launched:  # all are told, and then waited for
        gateway.process.terminate()
    for gateway in launched:
        gateway.wait()


@pytest.fixture(scope="session", params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """Each of WAYS in turn."""
    return request.param


@pytest.fixture(scope="session")
def gateways(launch_gateway: LaunchGateway, modelserver: ModelServerProcess):
    """`gateways(way)` -> the gateway of that way before the twin that serves the recorded models,
    made once."""
    return functools.cache(
        lambda way: launch_gateway(modelserver.address, way, models="affine,pair,echo")
    )


@pytest.fixture(scope="session")
def gateway(gateways: Callable[[str], GatewayProcess], way: str) -> GatewayProcess:
    """The gateway before the twin that serves the recorded models, once in each way."""
    return gateways(way)


@pytest.fixture(scope="session")
def launch_grpc_gateway(launch_gateway) -> Callable[..., tuple[GatewayProcess, str]]:
    """`launch_grpc_gateway(model_server_address, **settings)` -> (GatewayProcess, gRPC address)."""

    def launch(model_server: str, **settings: object) -> tuple[GatewayProcess, str]:
        port = free_port()
        gateway = launch_gateway(model_server, grpc_port=port, **settings)
        gateway.wait_for("Answering gRPC")
        return gateway, f"127.0.0.1:{port}"

    return launch


@pytest.fixture(scope="session")
def grpc_gateway(launch_grpc_gateway, modelserver) -> tuple[GatewayProcess, str]:
    """The gateway before the twin that serves the recorded models, and its gRPC address."""
    return launch_grpc_gateway(modelserver.address, models="affine")


@pytest.fixture(scope="session")
def published(made_once: MadeOnce) -> Path:
    """The directory of the model `digits`, trained for a few epochs and published as version 1."""
    command = ["-m", "service.cli", "train", "digits", "--epochs=8", "--model-repository"]
    return made_once("model-repository", command) / "digits"


@pytest.fixture(scope="session")
def installed(request: pytest.FixtureRequest) -> Callable[[Path], Path]:
    """`installed(requirements)` -> the bin folder of a virtual environment that holds what the file
    lists, made once and kept; another one when its text changes.

    SLUICE_CLIENT_ENVS names the directory of the environments; pytest's cache else.
    """
    root = Path(os.environ.get("SLUICE_CLIENT_ENVS") or request.config.cache.mkdir("client-envs"))
    root.mkdir(parents=True, exist_ok=True)

    def install(requirements: Path) -> Path:
        digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
        directory = root / f"{requirements.stem}-{digest}"
        done = directory / ".installed"
        pip = [directory / "bin/python", "-m", "pip", "install", "--disable-pip-version-check"]
        with alone(root / f"{directory.name}.lock") as held:
            if not done.exists():
                make = [sys.executable, "-m", "venv", directory]
                subprocess.run(make, check=True, pass_fds=[held])
                # Of its thousands of modules a client imports some hundred.
                install = [*pip, "--quiet", "--no-compile", "-r", requirements]
                subprocess.run(install, check=True, pass_fds=[held])
                done.touch()
        return directory / "bin"

    return install


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[webdriver.Chrome]":
    """A real Chromium, without a window and with a camera that shows a pattern, which remembers
    what pages ask and say."""
    from selenium import webdriver  # which hardly any test needs

    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1200,1000",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService("/usr/bin/chromedriver")
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()

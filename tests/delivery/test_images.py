"""The images of the gateway and the model server: what is in them, and how they live and end."""

import json
import re
import subprocess
import tomllib
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import requires
from importlib.util import find_spec
from pathlib import Path

import pytest
import requests
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.delivery.containers import LOCKED
from tests.delivery.materials import listed_in, packages_in
from tests.processes import free_port

ROOT = Path(__file__).parents[2]
MEGABYTE = 1e6
PNG = {"Content-Type": "image/png"}


@pytest.mark.clients
def test_hadolint_finds_nothing(tools):
    outcome = subprocess.run(
        [tools / "hadolint", ROOT / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (outcome.returncode, outcome.stdout) == (0, "")


def test_the_context_holds_what_the_dockerfile_copies_and_no_more():
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.M)
    ignored, *let_in, caches = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if not line.startswith("#")
    ]
    assert (ignored, caches) == ("*", "**/__pycache__")
    assert sorted(let_in) == sorted({f"!{path}" for paths in copied for path in paths.split()})


LOCKS = sorted((ROOT / "deploy/locks").glob("*.txt"))
EXTRAS = {
    "gateway": ("gateway", "otel"),
    "modelserver": ("modelserver",),
    "training": ("training",),
}


def locked(lock):
    """Its packages' versions and numbers of hashes, by name."""
    found = {}
    for name, version, hashes in re.findall(
        r"^([\w.-]+)==(\S+)[^\\]*\\\n((?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)",
        lock.read_text(),
        re.M,
    ):
        found[canonicalize_name(name)] = version, hashes.count("--hash")
    return found


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_a_lock_has_the_pinned_versions_and_nothing_without_a_hash(lock):
    pins = re.findall(r"^(\S+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
    pinned = {canonicalize_name(name): version for name, version in pins}
    versions = {name: version for name, (version, _) in locked(lock).items()}
    assert versions.items() <= pinned.items(), "make locks"
    requirements = [line for line in lock.read_text().splitlines() if not line.startswith(" ")]
    assert len(requirements) == len(versions)
    assert "://" not in lock.read_text()


@pytest.mark.parametrize("name", EXTRAS)
def test_a_lock_holds_what_its_image_asks_for_and_all_that_takes(name):
    there = locked(ROOT / f"deploy/locks/{name}.txt").keys()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    waiting = [*project["dependencies"]]
    for extra in EXTRAS[name]:
        waiting += project["optional-dependencies"][extra]
    needed = set()
    while waiting:
        requirement = Requirement(waiting.pop())
        package = canonicalize_name(requirement.name)
        applies = not requirement.marker or requirement.marker.evaluate({"extra": ""})
        if applies and package not in needed:
            needed.add(package)
            waiting += requires(package) or []
    assert needed <= there, "make locks"


def test_nvidias_libraries_are_locked():
    names = re.findall(r"^(nvidia-\S+)==", (ROOT / "constraints.txt").read_text(), re.M)
    assert locked(ROOT / "deploy/locks/nvidia.txt").keys() == set(names)


def test_compiled_packages_are_locked_for_more_than_one_machine():
    hashes = locked(ROOT / "deploy/locks/gateway.txt")
    assert all(hashes[name][1] > 10 for name in ("grpcio", "orjson", "numpy", "pillow"))


def test_nvidias_libraries_are_pinned_and_are_those_that_tensorflow_wants():
    pinned = dict(
        re.findall(r"^(nvidia-\S+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
    )
    wanted = [Requirement(each) for each in requires("tensorflow") if "and-cuda" in each]
    assert {each.name for each in wanted} == set(pinned)
    assert all(pinned[each.name] in each.specifier for each in wanted)


def test_the_page_says_what_tensorflow_was_built_for():
    package = Path(find_spec("tensorflow").origin).parent
    built = (package / "python/platform/build_info.py").read_text()
    (cuda,) = re.findall(r"'cuda_version', '(.+?)'", built)
    (kernels,) = re.findall(r"'cuda_compute_capabilities', \[(.+?)\]", built)
    pinned = dict(
        re.findall(r"^(nvidia-\S+)==(\d+\.\d+)", (ROOT / "constraints.txt").read_text(), re.M)
    )
    page = (ROOT / "docs/operations.md").read_text()
    (row,) = re.findall(r"^\| the twin and training, TensorFlow .+", page, re.M)
    _, server, libraries, said, *_ = row.split("|")
    assert locked(ROOT / "deploy/locks/modelserver.txt")["tensorflow"][0].startswith(
        server.split()[-1]
    )
    assert libraries.strip() == f"{cuda}, {pinned['nvidia-cudnn-cu12']}"
    assert pinned["nvidia-cuda-runtime-cu12"] in cuda
    assert re.findall(r"`(\w+)`", said) == re.findall(r"'(\w+)'", kernels)


@pytest.mark.parametrize("name", ["training", "modelserver"])
def test_an_image_for_gpus_is_the_image_and_nvidias_libraries_alone(name):
    _, stage = (ROOT / "Dockerfile").read_text().split(f"\nFROM {name} AS {name}-gpu\n")
    assert stage.partition("\n\n")[0].splitlines() == [
        "COPY --from=cuda /opt/sluice /opt/sluice",
        f'LABEL org.opencontainers.image.title="sluice-{name}-gpu"',
    ]


@pytest.fixture(scope="module")
def start_modelserver(start, images, published):
    """`start_modelserver()` -> the twin's container, serving `published`, with its `port`."""

    def run():
        port = free_port()
        container = start(
            images["modelserver"],
            f"--port={port}",
            "--model_repository=/models",
            options=(*LOCKED, f"--volume={published}:/models/digits:ro"),
        )
        container.port = port
        container.wait_for(lambda: "Running gRPC ModelServer" in container.log())
        return container

    return run


@pytest.fixture(scope="module")
def modelserver(start_modelserver):
    return start_modelserver()


@pytest.fixture(scope="module")
def start_gateway(start, images, modelserver):
    """`start_gateway()` -> the gateway's container before `modelserver`, with little memory and
    half a CPU; `url` is where it answers, `admin_port` where the machines ask."""

    def run():
        port, admin_port = free_port(), free_port()
        container = start(
            images["gateway"],
            options=(
                *LOCKED,
                "--memory=256m",
                "--memory-swap=256m",
                "--cpus=0.5",
                f"--env=SLUICE_MODEL_SERVER=127.0.0.1:{modelserver.port}",
                f"--env=SLUICE_HTTP_PORT={port}",
                f"--env=SLUICE_ADMIN_PORT={admin_port}",
                "--env=SLUICE_MODELS=digits",
                "--env=SLUICE_ACCESS=open",
                "--env=SLUICE_MAX_WAIT_S=60",  # half a CPU stands still now and then
            ),
        )
        container.admin_port = admin_port
        container.url = f"http://127.0.0.1:{port}"
        container.wait_for(lambda: answers(f"{container.url}/readyz"))
        return container

    return run


@pytest.fixture(scope="module")
def gateway(start_gateway):
    return start_gateway()


@pytest.mark.root
def test_they_are_what_they_say(engine, images):
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.M)[1]
    for name, image in images.items():
        config = engine.image(image)["Config"]
        assert config["User"] == "10001:10001"
        assert config["Entrypoint"] == ["sluice", name]
        assert config["Labels"]["org.opencontainers.image.title"] == f"sluice-{name}"
        assert config["Labels"]["org.opencontainers.image.version"] == version


@pytest.mark.root
def test_their_lists_of_materials_are_what_is_in_them(files):
    root, _ = files
    assert listed_in(root, "sbom.cdx.json") == packages_in(root)


@pytest.mark.root
def test_a_build_from_nothing_gives_the_same_layers(engine, images, build):
    before = engine.image(images["gateway"])
    again = engine.image(build("gateway", options=["--no-cache"])["gateway"])
    assert again["RootFS"]["Layers"] == before["RootFS"]["Layers"]
    assert again["Config"] == before["Config"]


@pytest.mark.load
@pytest.mark.root
def test_two_builds_from_nothing_have_one_digest(engine, build, tmp_path):
    """That of what a registry is sent, with what the page says of the two tools' options."""
    digests = []
    for number in range(2):
        image = build("gateway", options=["--no-cache", "--layers=false"])["gateway"]
        digests.append(engine.push(image, tmp_path / str(number)))
    assert digests[0] == digests[1]


@pytest.mark.root
def test_their_sizes(engine, images):
    sizes = {name: engine.image(image)["Size"] / MEGABYTE for name, image in images.items()}
    print({name: f"{size:.0f} MB" for name, size in sizes.items()})
    said = re.search(r"the gateway's \((\d+) MB\)", (ROOT / "README.md").read_text())[1]
    assert sizes["gateway"] == pytest.approx(int(said), rel=0.05)


@pytest.fixture(params=["gateway", "modelserver"])
def files(request, engine, images):
    """The root of an image, and the image's name."""
    with engine.mounted(images[request.param]) as root:
        yield root, request.param


@pytest.mark.root
def test_they_hold_these_sources_and_not_an_earlier_builds(files):
    root, _ = files
    (installed,) = root.glob("opt/sluice/lib/python3.*/site-packages/service")
    assert sources(installed) == sources(ROOT / "service")


def sources(directory):
    return {path.relative_to(directory): path.read_text() for path in directory.rglob("*.py")}


@pytest.mark.root
def test_the_gateways_holds_the_gateway_alone(files):
    root, image = files
    names = {path.name for path in root.rglob("*")}
    assert {"service", "grpc", "numpy"} <= names
    unwanted = {"tensorflow", "keras", "sh", "bash", "apt", "perl"}
    assert not names & unwanted if image == "gateway" else names > {"tensorflow", "sh"}
    (packages,) = root.glob("opt/sluice/lib/python3.*/site-packages")
    assert not (packages / "pip").exists()


@pytest.mark.root
def test_the_readmes_curl_lines_are_answered(gateway, published, tmp_path):
    (tmp_path / "model_repository").symlink_to(published.parent)
    readme = (ROOT / "README.md").read_text()
    commands = [
        block
        for block in re.findall(r"```sh\n(.*?)```", readme, re.S)
        if "curl" in block and "models/digits:predict" in block
    ]
    assert len(commands) == 3, "the raw body, the form, the JSON"
    for command in commands:
        outcome = subprocess.run(
            ["bash", "-c", command.replace("http://localhost:8080", gateway.url)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        (prediction,) = json.loads(outcome.stdout)["predictions"]
        assert prediction["label_classes"][0] == "3", command


@pytest.mark.root
def test_process_1_is_gunicorn_and_may_do_nothing(gateway):
    command = gateway.python("print(open('/proc/1/cmdline').read().split(chr(0))[1:4])")
    assert command == str(["-P", "-m", "gunicorn"])
    status = dict(
        line.split(":\t")
        for line in gateway.python("print(open('/proc/1/status').read())").splitlines()
    )
    assert set(status["Uid"].split("\t")) == set(status["Gid"].split("\t")) == {"10001"}
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert (
        "Read-only file system"
        in gateway.execute("python", "-c", "open('/opt/sluice/new', 'w')").stderr
    )


@pytest.mark.root
def test_the_health_checks_tell_the_truth(engine, images, gateway, modelserver):
    for container, name, port in (
        (gateway, "gateway", gateway.admin_port),
        (modelserver, "modelserver", modelserver.port),
    ):
        kind, *command = engine.image(images[name])["Healthcheck"]["Test"]
        assert kind == "CMD", "no shell"
        # The model server's asks the port that it has by default.
        command[-1] = command[-1].replace("127.0.0.1:8500", f"127.0.0.1:{port}")
        healthy = container.execute(*command)
        assert healthy.returncode == 0, healthy.stderr
        command[-1] = command[-1].replace(f"127.0.0.1:{port}", "127.0.0.1:1")
        assert container.execute(*command, SLUICE_ADMIN_PORT=1).returncode != 0


@pytest.mark.root
def test_sigterm_under_load_loses_no_accepted_request(start_gateway, published):
    gateway = start_gateway()
    image = (published / "1/samples/3-0.png").read_bytes()
    outcomes = []

    def ask(_):
        """Over and over, until there is no answer."""
        while not outcomes or outcomes[-1] == 200:
            try:
                reply = requests.post(
                    f"{gateway.url}/v1/models/digits:predict", image, headers=PNG, timeout=60
                )
                outcomes.append(reply.status_code)
            except requests.RequestException as error:
                outcomes.append("refused" if "Connection refused" in str(error) else repr(error))

    with ThreadPoolExecutor(8) as clients:
        asked = clients.map(ask, range(8))
        gateway.wait_for(lambda: len(outcomes) >= 100)
        assert gateway.stop() == 0
        list(asked)
    assert set(outcomes) == {200, "refused"}
    assert outcomes.count(200) >= 100
    assert "Traceback" not in gateway.log()


@pytest.mark.root
def test_the_model_server_ends_when_told(start_modelserver):
    modelserver = start_modelserver()
    assert modelserver.stop() == 0
    assert "Traceback" not in modelserver.log()


def answers(url):
    try:
        return requests.get(url, timeout=30).ok
    except requests.RequestException:
        return False

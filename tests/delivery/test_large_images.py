"""The images of training and those for GPUs, built, and asked on the CPU. They take gigabytes and
half an hour, so `.ci/run` leaves them out and `make test-images` builds them.
"""

import re
import tomllib
from pathlib import Path

import pytest

from sluice import Client
from tests import figures
from tests.delivery.containers import LOCKED
from tests.delivery.materials import listed_in, packages_in
from tests.processes import free_port

ROOT = Path(__file__).parents[2]
NAMES = ("training", "training-gpu", "modelserver-gpu")
PAGE, MARK = "decisions/0007-images.md", "make test-images"

pytestmark = [pytest.mark.root, pytest.mark.load]


@pytest.fixture(scope="module")
def large(build):
    """The images' names."""
    return build(*NAMES)


@pytest.fixture
def repository(tmp_path):
    """An empty one, which the images' user may write to."""
    directory = tmp_path / "models"
    directory.mkdir()
    directory.chmod(0o777)
    return directory


@pytest.fixture
def train(start, large, repository):
    """`train(image, *options)` -> the container of a short run, locked down, with its `status`."""

    def run(image, *options):
        container = start(
            large[image],
            *("digits", "--epochs=8", "--model-repository=/models"),
            options=(*LOCKED, f"--volume={repository}:/models", *options),
        )
        container.status = container.wait()
        return container

    return run


def test_they_are_what_they_say(engine, large):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for name, image in large.items():
        config = engine.image(image)["Config"]
        assert config["User"] == "10001:10001"
        command = "train" if name.startswith("training") else "modelserver"
        assert config["Entrypoint"] == ["sluice", command]
        assert config["Labels"]["org.opencontainers.image.title"] == f"sluice-{name}"
        assert config["Labels"]["org.opencontainers.image.version"] == version


@pytest.mark.parametrize("name", NAMES)
def test_their_lists_of_materials_are_what_is_in_them(engine, large, name):
    with engine.mounted(large[name]) as root:
        said = listed_in(root, "sbom.cdx.json")
        if name.endswith("-gpu"):
            nvidias = listed_in(root, "nvidia.cdx.json")
            assert nvidias and all(each.startswith("nvidia-") for each, _ in nvidias)
            said |= nvidias
        assert said == packages_in(root)


def test_their_sizes(request, engine, large):
    sizes = {name: engine.image(image)["Size"] / 1e6 for name, image in large.items()}
    if request.config.getoption("--write-docs"):
        rows = [f"| `{name}` | {size:,.0f} MB |" for name, size in sizes.items()]
        figures.write(PAGE, MARK, "\n".join(["| image | size |", "|---|---|", *rows]))
    said = re.findall(r"^\| `(\S+)` \| ([\d,]+) MB \|$", figures.written(PAGE, MARK), re.M)
    assert {name: int(size.replace(",", "")) for name, size in said} == pytest.approx(
        sizes, rel=0.05
    )


@pytest.mark.parametrize("image", ["training", "training-gpu"])
def test_what_training_publishes_is_answered_by_the_model_server_for_gpus(
    start, large, train, repository, image
):
    """Without a GPU, which neither needs."""
    trained = train(image)
    assert trained.status == 0, trained.log()
    assert "Published /models/digits/1" in trained.log()
    port = free_port()
    server = start(
        large["modelserver-gpu"],
        *("--model_repository=/models", f"--port={port}"),
        options=(*LOCKED, f"--volume={repository}:/models:ro"),
    )
    server.wait_for(lambda: "Running gRPC ModelServer" in server.log(), timeout_s=300)
    with Client(f"grpc://127.0.0.1:{port}", timeout_s=300) as client:
        (label, *_) = client.predict("digits", repository / "digits/1/samples/3-0.png").labels
    assert label == "3"
    assert server.stop() == 0


def test_a_run_that_was_given_a_gpu_and_sees_none_ends_before_it_begins(train, repository):
    run = train("training-gpu", "--env=SLUICE_GPUS=1")
    assert run.status == 1
    assert "TensorFlow sees 0 of the 1 GPUs that SLUICE_GPUS promises" in run.log()
    assert "Epoch" not in run.log() and not list(repository.iterdir())

"""A version as an image, taken by podman and served from where it is mounted."""

import subprocess
import sys
from pathlib import Path

import pytest

from sluice import Client

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.root


@pytest.fixture
def mounted(engine, published, tmp_path):
    """The root of an image of `published`, read-only, as podman lays it out."""
    command = ["package", "digits", f"--output={tmp_path}/image"]
    command.append(f"--model-repository={published.parent}")
    subprocess.run(
        [sys.executable, "-P", "-m", "service.cli", *command], check=True, capture_output=True
    )
    image = engine.run("podman", "pull", "--quiet", f"oci:{tmp_path}/image:1").stdout.strip()
    yield Path(engine.run("podman", "image", "mount", image).stdout.strip())
    engine.run("podman", "image", "unmount", "--force", image)
    engine.run("podman", "image", "rm", "--force", image)


def test_the_twin_serves_what_podman_mounts(mounted, published, launch_modelserver):
    assert [path.name for path in mounted.iterdir()] == ["models"]
    server = launch_modelserver("--model_name=digits", f"--model_base_path={mounted}/models")
    with Client(f"grpc://{server.address}") as client:
        (label, *_) = client.predict("digits", published / "1/samples/3-0.png").labels
    assert label == "3"
    assert server.terminate() == 0

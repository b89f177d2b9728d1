"""`make serve` as a newcomer types it, on a Debian with what the README asks for and no more."""

import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import requests

from tests.processes import free_port

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def system(engine):
    """An image of Debian with the README's prerequisites; certificates are what Debian's own
    images lack and every machine has."""
    (asked,) = re.findall(r"`apt-get install (.+?)`", (ROOT / "README.md").read_text())
    return engine.import_system(*asked.split(), "ca-certificates")


@pytest.fixture
def checkout(tmp_path):
    """What `git clone` gives of what is committed here."""
    directory = tmp_path / "sluice"
    subprocess.run(
        ["git", "clone", "--quiet", "--no-hardlinks", ROOT, directory],
        check=True,
        capture_output=True,
    )
    yield directory
    shutil.rmtree(directory)  # gigabytes, once TensorFlow is installed


def test_make_serve_answers_an_image_and_ends_when_told(start, system, checkout, pip_settings):
    http_port, grpc_port = free_port(), free_port()
    newcomer = start(
        system,
        "make",
        "serve",
        f"HTTP_PORT={http_port}",
        f"GRPC_PORT={grpc_port}",
        options=(
            "--init",
            "--workdir=/sluice",
            f"--volume={checkout}:/sluice",
            f"--volume={pip_settings.file}:/etc/pip.conf:ro",
            *(f"--volume={folder}:{folder}:ro" for folder in pip_settings.folders),
        ),
    )
    began = time.monotonic()
    newcomer.wait_for(lambda: "Try:" in newcomer.log(), timeout_s=1800)
    print(f"served after {time.monotonic() - began:.0f} s")
    image = checkout / "model_repository/digits/1/samples/3-0.png"
    reply = requests.post(
        f"http://127.0.0.1:{http_port}/v1/models/digits:predict",
        image.read_bytes(),
        headers={"Content-Type": "image/png"},
        timeout=60,
    )
    assert reply.json()["predictions"][0]["label_classes"][0] == "3"
    assert newcomer.stop() == 128 + signal.SIGTERM, "make's own way to end"
    assert re.search(r"\[gateway\].*Shutting down: Master", newcomer.log())
    assert "Traceback" not in newcomer.log()

"""The gateway's image for arm64, built and run where no such machine is at hand: its processor is
emulated, which takes some minutes.

    apt-get install qemu-user-static arch-test
    .venv/bin/python -m pytest tests/delivery/test_arm64.py -m load
"""

from pathlib import Path

import pytest
import requests

from tests.delivery.conftest import LOCKED, Container, Engine, build_images
from tests.processes import free_port

EMULATED = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64")
START_S = 300.0


@pytest.fixture(scope="module")
def emulating(request):
    """buildah and podman with a store of their own: an image of the same name is another one."""
    assert EMULATED.exists(), (
        "the kernel is to run arm64's programs: apt-get install qemu-user-static"
    )
    return Engine(Path(request.config.cache.mkdir("containers-arm64")))


@pytest.mark.load
def test_the_gateways_image_for_arm64_answers(
    emulating, pip_settings, launch_modelserver, published
):
    image = build_images(emulating, pip_settings, "gateway", architecture="arm64")["gateway"]
    assert emulating.image(image)["Architecture"] == "arm64"
    twin = launch_modelserver(f"--model_repository={published.parent}")
    port = free_port()
    gateway = Container(
        emulating,
        image,
        options=(
            *LOCKED,
            f"--env=SLUICE_MODEL_SERVER={twin.address}",
            f"--env=SLUICE_HTTP_PORT={port}",
            f"--env=SLUICE_ADMIN_PORT={free_port()}",
            "--env=SLUICE_ACCESS=open",
        ),
    )
    try:
        assert gateway.python("import platform; print(platform.machine())") == "aarch64"
        gateway.wait_for(lambda: "Answering HTTP" in gateway.log(), START_S)
        picture = (published / "1/samples/3-0.png").read_bytes()
        where = f"http://127.0.0.1:{port}/v1/models/digits:predict"
        reply = requests.post(where, picture, headers={"Content-Type": "image/png"}, timeout=60)
        assert reply.json()["predictions"][0]["label_classes"][0] == "3"
        assert gateway.stop() == 0
    finally:
        gateway.remove()

"""The gateway's image for arm64, built and run where no such machine is at hand: its processor is
emulated, which takes some minutes. And one name for images of several processors.

    apt-get install qemu-user-static arch-test
    make test-images
"""

import tarfile
import uuid
from pathlib import Path

import pytest
import requests

from tests.delivery.conftest import build_images
from tests.delivery.containers import LOCKED, Container, Engine
from tests.delivery.layouts import architectures
from tests.processes import free_port

EMULATED = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64")
START_S = 300.0
BOTH = [("amd64", "amd64"), ("arm64", "arm64")]


def join(engine, layout, *images):
    """One name for images of several architectures, as docs/decisions/0007-images.md tells, pushed
    to `layout`. images: with their transports, or a registry would be asked for them."""
    name = f"localhost/joined:{uuid.uuid4().hex[:12]}"
    engine.run("buildah", "manifest", "create", name)
    try:
        for image in images:
            engine.run("buildah", "manifest", "add", name, image)
        engine.run("buildah", "manifest", "push", "--all", name, f"oci:{layout}:1")
    finally:
        engine.run("buildah", "manifest", "rm", name)


@pytest.fixture
def small_images(engine, tmp_path):
    """Names of images of one file, of two architectures."""
    names = []
    for architecture, _ in BOTH:
        file = tmp_path / f"{architecture}.tar"
        with tarfile.open(file, "w") as tar:
            tar.addfile(tarfile.TarInfo(architecture))
        names.append(f"localhost/small:{architecture}")
        engine.run("podman", "import", f"--arch={architecture}", file, names[-1])
    yield names
    engine.run("podman", "image", "rm", "--force", *names)


@pytest.mark.root
def test_images_of_two_architectures_get_one_name(engine, small_images, tmp_path):
    layout = tmp_path / "joined"
    join(engine, layout, *(f"containers-storage:{each}" for each in small_images))
    assert architectures(layout) == BOTH


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

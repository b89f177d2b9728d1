"""A machine on which nothing can be written: every file system read-only, /tmp and /dev/shm too."""

import subprocess

import pytest
import requests

from sluice import Client
from tests.processes import START_TIMEOUT_S

pytestmark = pytest.mark.root

# In a mount namespace of its own: it is nobody else's file systems that become so.
READ_ONLY = ["unshare", "--mount", "sh", "-c"]
SEAL = 'for each in $(findmnt -rno TARGET); do mount -o remount,bind,ro "$each"; done 2>/dev/null'
NOWHERE = [*READ_ONLY, f'{SEAL}; exec "$@"', "sh"]
TMPDIR_ALONE = [*READ_ONLY, f'{SEAL}; mount -t tmpfs none "$TMPDIR"; exec "$@"', "sh"]


def test_nothing_can_be_written_there(tmp_path):
    for place in (tmp_path, "/tmp", "/var/tmp", "/dev/shm"):
        touched = subprocess.run(
            [*NOWHERE, "touch", f"{place}/file"], capture_output=True, text=True, check=False
        )
        assert "Read-only file system" in touched.stderr, place


def test_the_model_server_starts(launch_modelserver, conformance_models):
    twin = launch_modelserver(
        "--model_name=affine", f"--model_base_path={conformance_models}/affine", within=NOWHERE
    )
    with Client(f"grpc://{twin.address}") as client:
        assert client.predict("affine", [1.0])["y"] == [2.0]
    assert twin.terminate() == 0


def test_up_says_what_to_set(up, repository):
    running = up(repository, ready=False, within=NOWHERE)
    assert running.process.wait(START_TIMEOUT_S) == 1
    running.stop()
    assert "temporary files cannot be written" in running.log
    assert "set TMPDIR to a directory where they can\n" in running.log


def test_up_serves_with_one_directory_to_write_to(up, repository, image, tmp_path_factory):
    directory = tmp_path_factory.mktemp("writable")
    running = up(repository, within=TMPDIR_ALONE, TMPDIR=str(directory))
    reply = requests.post(f"{running.url}/v1/models/digits:predict", data=image, timeout=30)
    assert reply.json()["predictions"][0]["label_classes"][0] == "3"
    assert running.stop() == 0
    assert not list(directory.iterdir()), "it was mounted for that process alone"

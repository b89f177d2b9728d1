"""The twin told whose versions to trust: what they did not sign is not loaded, and the version
before goes on."""

import shutil
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from service.modelserver.build import make_repository
from service.modelserver.errors import StartError
from service.modelserver.metrics import Metrics
from service.modelserver.options import Options
from sluice.wire.contract import State
from sluice.wire.protos.serving_pb2 import ModelSpec
from sluice.wire.signing import SigningKey
from tests.signing import key_pair


@pytest.fixture
def key(tmp_path):
    private, _ = key_pair(tmp_path, "ours", ec.generate_private_key(ec.SECP256R1()))
    return SigningKey(private)


@pytest.fixture
def version(tmp_path, conformance_models):
    """`version(source, number)` -> `affine` in that number, as it is published: whole."""

    def publish(source, number, signed_by=None):
        beside = tmp_path / "models/affine/beside"
        shutil.copytree(conformance_models / source, beside)
        if signed_by:
            signed_by.sign(beside, "affine", number)
        return beside.rename(beside.with_name(str(number)))

    return publish


@pytest.fixture
def repository(tmp_path, key, version):
    """Started, with `affine` 1 loaded."""
    version("affine/1", 1, key)
    options = Options(
        model_repository=str(tmp_path / "models"),
        trusted_keys=str(tmp_path / "ours-public.pem"),
        file_system_poll_wait_seconds=0.02,
    )
    repository = make_repository(options, Metrics())
    repository.start()
    assert repository.wait_until_settled(60)
    assert states(repository) == {1: State.AVAILABLE}
    yield repository
    repository.stop()


def states(repository):
    return {each.version: each.state for each in repository.status(ModelSpec(name="affine"))}


def refusal(repository):
    """Why version 2 is not served, while 1 is."""
    assert repository.wait_until_settled(60)
    assert states(repository) == {1: State.AVAILABLE, 2: State.END}
    return repository.status(ModelSpec(name="affine"))[0].status.error_message


def test_a_flipped_bit_is_not_loaded_until_it_is_mended(repository, key, tmp_path):
    key.sign(shutil.copytree(tmp_path / "models/affine/1", tmp_path / "affine"), "affine", 2)
    file = tmp_path / "affine/variables/variables.index"
    content = file.read_bytes()
    file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    (tmp_path / "affine").rename(tmp_path / "models/affine/2")
    file = tmp_path / "models/affine/2/variables/variables.index"
    assert f"{file} is not the file that was signed" in refusal(repository)
    file.write_bytes(content)
    until = time.monotonic() + 60
    while states(repository)[2] != State.AVAILABLE:  # a look may see it half written, and again
        assert time.monotonic() < until
        assert repository.wait_until_settled(60)


def test_a_version_that_nobody_signed_is_not_loaded(repository, version):
    version("affine/2", 2)
    assert "affine/2 is not signed; sluice sign does that" in refusal(repository)


def test_an_older_version_is_not_loaded_as_a_newer_one(repository, tmp_path):
    shutil.copytree(tmp_path / "models/affine/1", tmp_path / "copy")
    (tmp_path / "copy").rename(tmp_path / "models/affine/2")
    assert "was signed as affine/1, and is to be served as affine/2" in refusal(repository)


def test_a_version_that_is_written_to_while_it_is_loaded_is_not_served(
    repository, version, key, monkeypatch, caplog
):
    waiting = ["once"]

    def warm_up(_servable, path, _iterations):
        if waiting:
            waiting.pop()
            (path / "saved_model.pb").write_bytes((path / "saved_model.pb").read_bytes())

    monkeypatch.setattr("service.modelserver.build.warm_up", warm_up)
    version("affine/2", 2, key)
    assert repository.wait_until_settled(60)
    assert "affine/2 was written to while it was loaded" in caplog.text
    assert repository.wait_until_settled(60)  # as its files have changed
    assert states(repository)[2] == State.AVAILABLE


def test_keys_that_cannot_be_read_keep_it_from_starting():
    with pytest.raises(StartError, match=r"--trusted_keys: /no/keys\.pem cannot be read"):
        make_repository(Options(trusted_keys="/no/keys.pem"), Metrics())

"""Which models `sluice up` lists for its servers while the disk changes; no server answers here."""

import os

import pytest

from service.up.models import Models
from sluice import Client
from sluice.wire.model_config import read_names


@pytest.fixture
def follow(repository, tmp_path):
    """Look once; the names that are then in the list."""
    models = Models(repository, tmp_path / "models.config")
    models.rescan()

    def follow():
        models.follow(client)
        return read_names(tmp_path / "models.config")

    with Client("grpc://127.0.0.1:1", retries=0) as client:
        yield follow


@pytest.fixture
def repository(tmp_path):
    add(tmp_path / "repository/digits")
    return tmp_path / "repository"


def add(model):
    (model / "1").mkdir(parents=True)
    (model / "1/saved_model.pb").write_bytes(b"whole")


def test_a_new_model_is_listed_once_it_can_be_loaded(follow, repository, capfd):
    (repository / "photos/1").mkdir(parents=True)
    assert [follow(), follow()] == [["digits"]] * 2
    (repository / "photos/1/saved_model.pb").write_bytes(b"whole")
    assert follow() == ["digits", "photos"]
    assert capfd.readouterr().err.count("photos is not served") == 1


def test_what_may_be_loaded_stays_while_a_version_of_it_is_there(follow, repository, capfd):
    (repository / "digits/1/saved_model.pb").unlink()  # to be written anew
    assert follow() == ["digits"]
    assert "digits is not served" not in capfd.readouterr().err
    (repository / "digits/1").rmdir()
    assert follow() == []


def test_a_repository_that_goes_away_changes_nothing_until_it_is_back(follow, repository, capfd):
    repository.rename(repository.with_name("aside"))
    assert [follow(), follow()] == [["digits"]] * 2
    said = f"[sluice] {repository} cannot be read (it is gone); what is served stays as it was\n"
    assert capfd.readouterr().err.count(said) == 1
    repository.with_name("aside").rename(repository)
    add(repository / "photos")
    assert follow() == ["digits", "photos"]


def test_a_folder_whose_name_is_no_utf_8_changes_nothing(follow, repository, capfd):
    add(repository / os.fsdecode(b"caf\xe9"))
    assert [follow(), follow()] == [["digits"]] * 2
    assert capfd.readouterr().err.count("is not served: its name is no UTF-8") == 1

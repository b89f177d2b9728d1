"""What a version is on disk, and which directories of a repository are models."""

from pathlib import Path

import pytest

from service.modelserver.policy import find_models
from sluice.wire.model_config import models_in
from sluice.wire.versions import (
    find_versions,
    model_directories,
    published_versions,
    version_number,
)
from training.publishing.listing import published


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("7", 7),
        ("007", 7),
        ("0", 0),
        ("-1", -1),
        (str(2**63 - 1), 2**63 - 1),
        (str(2**63), None),
        ("1.tmp", None),
        ("v2", None),
        ("+1", None),
        ("1_000", None),
        (" 1", None),
        ("\N{ARABIC-INDIC DIGIT ONE}", None),
        ("", None),
    ],
)
def test_a_versions_name_is_a_whole_number(name, number):
    assert version_number(name) == number


@pytest.fixture
def repository(tmp_path):
    """`digits` with versions 9 and 10, and names that are no models."""
    for directory in (
        "digits/9",
        "digits/10",
        "digits/.publishing",
        ".hidden/1",
        "draft",
        "notes/text",
    ):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "digits/11").touch()
    (tmp_path / "README").touch()
    return tmp_path


def test_versions_are_directories_oldest_first(repository):
    assert list(find_versions(repository / "digits")) == [9, 10]


def test_of_two_names_of_one_number_the_first_counts(repository):
    (repository / "digits/009").mkdir()
    assert find_versions(repository / "digits")[9].name == "009"


def test_a_published_version_holds_a_saved_model(repository):
    (repository / "digits/10/saved_model.pb").touch()
    assert list(published_versions(repository / "digits")) == [10]
    assert published_versions(repository / "nobody") == {}


def test_a_model_is_a_directory_that_holds_a_version(repository):
    assert models_in(repository) == ["digits"]
    assert models_in(repository / "nowhere") == []


def test_a_repository_that_cannot_be_listed_is_an_error_and_not_an_empty_one(tmp_path):
    with pytest.raises(FileNotFoundError):
        model_directories(tmp_path / "nowhere")


@pytest.fixture
def lost_and_found(repository, monkeypatch):
    """A directory that cannot be listed, as root's on a volume: for root too, who runs some CI."""
    locked = repository / "lost+found"
    locked.mkdir(mode=0)
    listed = Path.iterdir

    def iterdir(path):
        if path == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)


@pytest.mark.usefixtures("lost_and_found")
def test_what_cannot_be_listed_is_passed_over_by_all_who_look(repository):
    (repository / "digits/10/saved_model.pb").touch()
    (repository / "digits/10/metrics.json").write_text('{"signatures": {}, "heads": {}}')
    assert list(model_directories(repository)) == ["digits"]
    assert models_in(repository) == ["digits"]
    assert list(find_models(repository)) == ["digits"]
    assert [(each.model, each.version) for each in published(repository)] == [("digits", 10)]

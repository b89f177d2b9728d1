"""What a version is on disk, and which directories of a repository are models."""

import os
import re
from pathlib import Path

import pytest

from service.modelserver.policy import find_models
from sluice.wire.versions import (
    find_versions,
    model_directories,
    published_versions,
    survey,
    version_number,
    why_no_saved_model,
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
    assert list(survey(repository)[0]) == list(model_directories(repository)) == ["digits"]


def test_a_repository_that_cannot_be_listed_is_an_error_and_not_an_empty_one(tmp_path):
    with pytest.raises(FileNotFoundError):
        model_directories(tmp_path / "nowhere")


# By what lies in the repository: what is said of it, where something is; R is the repository.
MISPLACED = {
    "m/saved_model.pb": "its SavedModel lies in R/m itself, .* make R/m/1 and move everything",
    "1/saved_model.pb": "it is a version itself: the model is R, and a repository is what models",
    "m/v2/saved_model.pb": '"v2" is no version, .* mv R/m/v2 R/m/2',
    "m/latest/saved_model.pb": "mv R/m/latest R/m/1",
    "m n/v1/saved_model.pb": "mv 'R/m n/v1' 'R/m n/1'",
    "m/model.keras": r"sluice publish R/m/model.keras --name m --model-repository R$",
    "m/m.weights.h5": r"holds a Keras model's weights alone: .*load_weights, .*R/m/1",
    "m.h5": r"R/m.h5 is a Keras file, .* R/m.h5 --name m --model-repository R$",
    "saved_model.pb": "a SavedModel lies in a directory MODEL/1",
    "m/1": "R/m/1 is no directory",
    "m/notes.txt": "no directory in it is a version",
    "m/.publishing": None,
    "README.md": None,
}


@pytest.mark.parametrize(("file", "reason"), MISPLACED.items())
def test_why_something_is_no_model_and_what_to_do_is_told(tmp_path, file, reason):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).touch()
    models, others = survey(tmp_path)
    assert not models
    if reason is None:
        assert not others
    else:
        [told] = others.values()
        assert re.search(reason, told.replace(str(tmp_path), "R"))


def test_a_folder_whose_name_is_no_utf_8_is_no_model(repository):
    """As an old archive may hold one. A list of models that had it could not be written."""
    (repository / os.fsdecode(b"caf\xe9") / "1").mkdir(parents=True)
    assert survey(repository)[1]["caf\\udce9"].startswith("its name is no UTF-8")
    assert list(find_models(repository)[0]) == list(survey(repository)[0]) == ["digits"]


def test_links_that_lead_nowhere_are_no_models_and_no_versions(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m/1").symlink_to("1")
    (tmp_path / "loop").symlink_to("loop")
    models, others = survey(tmp_path)
    assert not models
    assert others["m"].endswith("m/1 is a link that leads nowhere, and so no version")
    assert others["loop"].startswith("it cannot be listed: Too many levels")


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("saved_model.pb", "R/saved_model.pb is empty, .* copy the version again"),
        ("variables/variables.index", "R holds no saved_model.pb: is it copied whole"),
        ("old.keras", r"sluice publish R/old.keras --name \S+ --model-repository /\S+$"),
        ("deeper/saved_model.pb", "lies in R/deeper: move what is in there one up"),
    ],
)
def test_why_a_version_holds_no_saved_model_is_told(tmp_path, file, reason):
    assert re.search("is empty: copy a SavedModel into it", why_no_saved_model(tmp_path))
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    assert re.search(reason, why_no_saved_model(tmp_path).replace(str(tmp_path), "R"))
    (tmp_path / "saved_model.pb").write_text("something")
    assert why_no_saved_model(tmp_path) is None


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
    assert list(survey(repository)[0]) == ["digits"]
    configs, others = find_models(repository)
    assert list(configs) == ["digits"]
    assert others["lost+found"] == "it cannot be listed: Permission denied"
    assert [(each.model, each.version) for each in published(repository)] == [
        ("digits", 9),
        ("digits", 10),
    ]

"""What `sluice up` and its kin say of what they find in a model repository and cannot serve."""

import os
import shlex
import subprocess

import click
import pytest

from service.cli import main
from sluice.wire.unserved import find_unserved

PB = "saved_model.pb"


@pytest.fixture
def repository(tmp_path):
    """With what is served beside what is not."""
    for file in ("digits/1/" + PB, "digits/2/half", ".hidden/readme", "README.md"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    return tmp_path


def put(repository, *files):
    for file in files:
        (repository / file).parent.mkdir(parents=True, exist_ok=True)
        (repository / file).touch()


def test_a_version_that_can_be_loaded_is_enough(repository):
    assert find_unserved(repository) == {}
    assert find_unserved(repository / "nowhere") == {}


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("photos/1/variables/variables.index", "version 1: saved_model.pb is missing"),
        ("photos/3/model.keras", "version 3: model.keras is a Keras file and no SavedModel"),
        ("photos/model.h5", "model.h5 is a Keras file and no SavedModel"),
        ("photos/notes.txt", "it has no version, which is a folder named by a number: copy a "),
    ],
)
def test_the_reason_names_what_is_there(repository, file, reason):
    put(repository, file)
    assert find_unserved(repository)["photos"].startswith(reason)


def test_an_empty_version_and_an_empty_model(repository):
    (repository / "photos/1").mkdir(parents=True)
    (repository / "flowers").mkdir()
    found = find_unserved(repository)
    assert found["photos"] == (
        "version 1: the folder is empty: copy a SavedModel into it, saved_model.pb last"
    )
    assert found["flowers"].endswith(f"to {repository / 'flowers/1'}, saved_model.pb last")


@pytest.mark.parametrize(
    ("file", "name"), [("my photos.keras", "my photos"), ("a b/3/m.h5", "a b"), ("c/m.h5", "c")]
)
def test_a_keras_file_is_named_with_the_command_that_publishes_it(repository, file, name):
    put(repository, file)
    [reason] = find_unserved(repository).values()
    sluice, publish, *words = shlex.split(reason.partition(" SavedModel: ")[2])
    command = main.get_command(click.Context(main), publish)
    given = command.make_context(publish, words).params
    assert (sluice, given["name"]) == ("sluice", name)
    assert (given["model"], given["model_repository"]) == (repository / file, repository)


@pytest.mark.parametrize("file", [f"a b/{PB}", f"a b/v1/{PB}", f"a b/latest/{PB}", "a b/v2/x"])
def test_the_command_that_is_advised_makes_a_version(repository, file):
    put(repository, file)
    command = find_unserved(repository)["a b"].rpartition(": ")[2]
    subprocess.run(["bash", "-c", command.rpartition("; ")[2]], check=True, cwd=repository)
    put(repository, f"a b/{2 if 'v2' in file else 1}/{PB}")
    assert find_unserved(repository) == {}
    assert [entry.name for entry in (repository / "a b").iterdir()] == [
        "2" if "v2" in file else "1"
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_cannot_be_listed_is_named(repository):
    (repository / "lost+found").mkdir(mode=0)
    assert find_unserved(repository) == {"lost+found": "it cannot be read (Permission denied)"}

"""`sluice rollback`, `rm` and `label`: what becomes of the directories, and what the user reads."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from google.protobuf import text_format

from service.cli import main
from sluice.wire.labels import LABELS_FILE, read_labels
from sluice.wire.model_config import write_config
from sluice.wire.protos.serving_pb2 import ModelServerConfig
from sluice.wire.versions import find_versions, withdrawn_versions
from training.publishing.version_directory import publish_directory


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    for number in (1, 2, 3):
        version = tmp_path / "digits" / str(number)
        version.mkdir(parents=True)
        (version / "saved_model.pb").write_bytes(b"%d" % number)
    return tmp_path / "digits"


def run(digits: Path, *words: str) -> str:
    """What the command says; its errors too."""
    result = CliRunner().invoke(main, [*words, f"--model-repository={digits.parent}"])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.output


def versions(digits: Path) -> tuple[list[int], list[int]]:
    """Those that are served, and those that are withdrawn."""
    return list(find_versions(digits)), list(withdrawn_versions(digits))


def test_rolling_back_withdraws_the_newest_and_brings_it_back(digits: Path) -> None:
    assert "digits 2 is the newest now" in run(digits, "rollback", "digits")
    assert versions(digits) == ([1, 2], [3])
    run(digits, "rollback", "digits", "1")
    assert versions(digits) == ([1], [2, 3])
    assert "digits 3 is back" in run(digits, "rollback", "digits", "3")
    assert versions(digits) == ([1, 3], [2])
    assert (digits / "3/saved_model.pb").read_bytes() == b"3"


def test_a_withdrawn_versions_number_is_not_given_to_another(digits: Path) -> None:
    run(digits, "rollback", "digits")
    assert publish_directory(digits, lambda _: None).name == "4"


def test_what_cannot_be_rolled_back_is_told(digits: Path) -> None:
    assert "no version 9; there are: 1, 2, 3" in run(digits, "rollback", "digits", "9")
    assert "did you mean digits?" in run(digits, "rollback", "digit")
    run(digits, "rollback", "digits", "1")
    assert "has no version before 1; withdrawn: 2, 3" in run(digits, "rollback", "digits")
    assert versions(digits) == ([1], [2, 3])


def test_a_version_is_deleted_whole_unless_it_is_in_use(digits: Path) -> None:
    assert "sluice rollback digits first, or --force" in run(digits, "rm", "digits", "3")
    run(digits, "label", "digits", "stable=2")
    assert "sluice label digits stable= first, or --force" in run(digits, "rm", "digits", "2")
    assert versions(digits) == ([1, 2, 3], [])
    assert "has it loaded lets go" in run(digits, "rm", "digits", "1")
    run(digits, "rollback", "digits", "2")
    assert run(digits, "rm", "digits", "3") == "digits 3 is deleted\n"
    assert versions(digits) == ([2], [])
    assert sorted(path.name for path in digits.iterdir()) == ["2", LABELS_FILE]
    assert "no version left" in run(digits, "rm", "digits", "2", "--force")
    assert read_labels(digits) == {}


def test_where_the_newest_is_deleted_the_next_is_named(digits: Path) -> None:
    assert "digits 2 is the newest now" in run(digits, "rm", "digits", "3", "--force")


def test_labels_are_in_the_list_that_the_servers_read(digits: Path, tmp_path: Path) -> None:
    run(digits, "label", "digits", "stable=1")
    run(digits, "label", "digits", "canary=3")
    assert "digits 2 is stable\na running sluice up follows within seconds" in run(
        digits, "label", "digits", "stable=2"
    )
    [model] = listed(digits, tmp_path)
    assert dict(model.version_labels) == {"stable": 2, "canary": 3}
    assert list(model.model_version_policy.specific.versions) == [2, 3]

    run(digits, "label", "digits", "canary=")
    run(digits, "label", "digits", "stable=")
    [model] = listed(digits, tmp_path)
    assert not model.version_labels
    assert not model.HasField("model_version_policy")


def test_a_label_of_a_version_that_is_withdrawn_takes_no_model_out_of_service(
    digits: Path, tmp_path: Path
) -> None:
    run(digits, "label", "digits", "stable=3")
    run(digits, "rollback", "digits")
    [model] = listed(digits, tmp_path)
    assert not model.version_labels
    (digits / LABELS_FILE).write_text("[]")
    [model] = listed(digits, tmp_path)
    assert not model.version_labels
    assert "is not as expected" in run(digits, "label", "digits", "stable=1")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("stable", "expected LABEL=VERSION"),
        ("7=1", "a label begins with a letter"),
        ("stable=9", "no version 9"),
        ("canary=", "no label 'canary'; known: none"),
    ],
)
def test_what_is_no_label_is_told(digits: Path, word: str, said: str) -> None:
    assert said in run(digits, "label", "digits", word)
    assert read_labels(digits) == {}


def listed(digits: Path, directory: Path):
    config = directory / "models.config"
    write_config(config, digits.parent, ["digits"])
    return text_format.Parse(config.read_text(), ModelServerConfig()).model_config_list.config

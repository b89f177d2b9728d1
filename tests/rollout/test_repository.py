"""What a rollout means to those who read the repository: models.config, labels, other commands."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from google.protobuf import text_format

from service.cli import main
from service.rollout import state
from sluice.wire.labels import labels_in_force, write_labels
from sluice.wire.model_config import write_config
from sluice.wire.protos.serving_pb2 import ModelServerConfig
from sluice.wire.rollout_files import ROLLOUT_FILE
from training.publishing.listing import as_json, table


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    for number in (1, 2, 3):
        publish(tmp_path / "digits", number)
    return tmp_path / "digits"


def publish(digits: Path, number: int) -> None:
    (digits / str(number)).mkdir(parents=True)
    (digits / str(number) / "saved_model.pb").write_bytes(b"")


def run(digits: Path, *words: str) -> str:
    result = CliRunner().invoke(main, [*words, f"--model-repository={digits.parent}"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.output


def served(digits: Path) -> tuple[list[int], dict[str, int]]:
    """The versions and the labels of models.config, as it is written anew; no versions: the newest
    alone."""
    path = digits.parent / "models.config"
    write_config(path, digits.parent, ["digits"])
    [config] = text_format.Parse(path.read_text(), ModelServerConfig()).model_config_list.config
    return list(config.model_version_policy.specific.versions), dict(config.version_labels)


def test_both_versions_are_served_and_labelled_and_no_newer_one(digits: Path) -> None:
    assert served(digits) == ([], {})
    write_labels(digits, {"old": 1, "stable": 1})
    assert served(digits) == ([1, 3], {"old": 1, "stable": 1})
    state.start(digits, 3)
    publish(digits, 4)
    assert served(digits) == ([1, 2, 3], {"old": 1, "stable": 2, "canary": 3})
    state.promote(digits)
    assert served(digits) == ([1, 2, 3], {"old": 1, "stable": 3})
    state.abort(digits)
    assert served(digits) == ([1, 2], {"old": 1, "stable": 2})
    state.end(digits)
    assert served(digits) == ([1, 4], {"old": 1, "stable": 1})


def test_a_file_that_cannot_be_used_changes_nothing(digits: Path) -> None:
    state.start(digits, 2, live=1)
    before = served(digits)
    (digits / ROLLOUT_FILE).write_text("{")
    publish(digits, 4)
    assert served(digits) == before == ([1, 2], {"stable": 1, "canary": 2})


def test_other_commands_leave_a_rollout_alone(digits: Path) -> None:
    state.start(digits, 3)
    assert "sluice rollout abort digits" in run(digits, "rollback", "digits")
    for version in ("2", "3"):
        assert "is in a rollout" in run(digits, "rm", "digits", version, "--force")
    assert "a rollout moves the label canary" in run(digits, "label", "digits", "canary=1")
    assert "digits 1 is old" in run(digits, "label", "digits", "old=1")
    assert labels_in_force(digits) == {"old": 1, "stable": 2, "canary": 3}
    state.abort(digits)
    assert "digits 3 is deleted" in run(digits, "rm", "digits", "3", "--force")
    assert state.hold(digits).answering == 2


def test_the_list_tells_what_became_of_rollouts(digits: Path) -> None:
    state.start(digits, 3)
    state.abort(digits, "it was slow")
    state.start(digits, 3, live=1)
    [model] = as_json(digits.parent)["models"]
    told = [(each["live"], each["next"], each["history"][-1]["why"]) for each in model["rollouts"]]
    assert told == [(2, 3, "it was slow"), (1, 3, "by hand")]
    [line] = [each for each in table(digits.parent).splitlines() if "it was slow" in each]
    assert line.startswith("digits 3, rolled out after 2: 20")
    assert "rolled back, it was slow (" in line


def test_the_list_says_what_answers_and_what_is_wrong(digits: Path) -> None:
    state.start(digits, 2, live=1)
    [model] = as_json(digits.parent)["models"]
    assert (model["live"], model["labels"]) == (1, {"stable": 1, "canary": 2})
    (digits / ROLLOUT_FILE).write_text('{"live": 1}')
    [model] = as_json(digits.parent)["models"]
    assert "rollout.json: id: expected str" in model["labels_fault"]
    for words in (["rm", "digits", "1"], ["rollback", "digits"], ["label", "digits", "x=1"]):
        assert "rollout.json: id: expected str" in run(digits, *words)

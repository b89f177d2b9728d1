"""docs/your-model.md, from `model.save()` to a guarded service, typed as it stands."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import typed

SECTION = "From `model.save()` to a guarded service"


def type_in(command: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Where `python` and `sluice` are those that run here."""
    return typed.type_in(command, directory, Path(sys.executable).parent)


def printed(command: str, directory: Path) -> str:
    done = type_in(command, directory)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_model_that_was_saved_answers_and_is_guarded(tmp_path: Path, up) -> None:
    make, publish, ask, replace = typed.blocks("docs/your-model.md", section=SECTION)
    printed(make, tmp_path)
    printed(publish, tmp_path)
    repository = tmp_path / "model_repository"
    url = up(repository).url
    [row] = json.loads(printed(ask.replace("http://localhost:8080", url), tmp_path))["predictions"]
    assert row["label_classes"][0] == "7"
    assert row["novelty"] <= 1
    refused = type_in(replace, tmp_path)
    assert refused.returncode == 1
    assert re.search(r"worse.*--allow-worse", refused.stderr)
    assert [each.name for each in (repository / "mine").glob("[0-9]*")] == ["1"]

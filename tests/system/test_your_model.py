"""docs/your-model.md, from model.save() to a guarded service, typed as it stands."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "your-model.md"
SECTION = "## From `model.save()` to a guarded service"


def blocks() -> list[str]:
    section = PAGE.read_text().split(SECTION)[1].partition("\n## ")[0]
    return re.findall(r"```sh\n(.*?)```", section, re.DOTALL)


def typed(lines: str, directory: Path, url: str = "") -> subprocess.CompletedProcess[str]:
    """In a shell where this Python is `python`, and its `sluice` the command."""
    ours = f'python() {{ {sys.executable} "$@"; }}; sluice() {{ python -P -m service.cli "$@"; }}\n'
    lines = lines.replace("http://localhost:8080", url)
    return subprocess.run(
        ["bash", "-c", ours + lines], cwd=directory, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_a_newcomer_gets_there(tmp_path, up):
    make, publish, ask, replace = blocks()
    for lines in make, publish:
        done = typed(lines, tmp_path)
        assert done.returncode == 0, done.stderr
    answer = typed(ask, tmp_path, up(tmp_path / "model_repository").url)
    [row] = json.loads(answer.stdout)["predictions"]
    assert row["label_classes"][0] == "3"
    assert row["novelty"] <= 1
    refused = typed(replace, tmp_path)
    assert refused.returncode == 1
    assert re.search(r"worse.*--allow-worse", refused.stderr)
    assert [each.name for each in (tmp_path / "model_repository/mine").glob("[0-9]*")] == ["1"]

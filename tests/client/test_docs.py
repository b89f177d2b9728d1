"""docs/client.md: what it tells to type gives what it says."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from sluice.client import errors
from sluice.client.command import DEFAULT_URL, predict

PAGE = (Path(__file__).parents[2] / "docs/client.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.S)


@pytest.fixture
def pictures(samples, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, digit in {"three": 3, "seven": 7}.items():
        shutil.copy(samples[digit], tmp_path / f"{name}.png")


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_python_prints_what_the_comments_say(block, urls, capsys):
    code = block.replace(DEFAULT_URL, urls["http"]).replace("grpc://localhost:8500", urls["grpc"])
    exec(compile(code, "docs/client.md", "exec"), {"np": np})
    printed = capsys.readouterr().out
    for comment in re.findall(r"print\(.*\)  # (['\"\[(\d].*|inputs.*|float32.*)", block):
        assert comment.removesuffix("...") in printed


@pytest.mark.usefixtures("pictures")
def test_the_shells_command(urls):
    (block,) = re.findall(r"```sh\n(.*?)```", PAGE, re.S)
    arguments = shlex.split(block.removeprefix("sluice predict"))
    printed = CliRunner().invoke(predict, [*arguments, "--url", urls["http"]]).output
    table = re.search(r"```\n\n((?:    .*\n)+)", PAGE)[1]
    for line, shown in zip(printed.splitlines(), table.splitlines(), strict=True):
        assert line.split()[:3] == shown.split()[:3]


def test_every_error_is_documented():
    kinds = [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, errors.ClientError)
    ]
    assert [kind.__name__ for kind in kinds if f"`{kind.__name__}`" not in PAGE] == []

"""`sluice rollout MODEL VERSION` before a real gateway: through all stages by itself, or back."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from service.rollout.command import rollout
from sluice.wire.rollouts import Stage, read_rollout
from tests.gateway.rollouts import Door

GUARD = """
pairs = 40
seconds = 0
[allowed]
class = 0.5
mask = 0.5
value = 0.5
slower = 1  # both are asked on a machine that does much else
[times]
slow = 1e6
[[steps]]
share = 0.5
requests = 10
"""


@contextmanager
def asked(door: Door, model: str) -> Iterator[list[int]]:
    """Requests one after the other meanwhile; the statuses of their answers."""
    statuses: list[int] = []
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.01):
            statuses.append(door.predict(model).status_code)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield statuses
    finally:
        over.set()
        asking.join()


def roll_out(door: Door, model: str, guard: Path, *options: str) -> Result:
    arguments = [model, "2", f"--model-repository={door.repository}", f"--guard={guard}", *options]
    return CliRunner().invoke(rollout, arguments)


@pytest.fixture
def guard(tmp_path: Path) -> Path:
    path = tmp_path / "guard.toml"
    path.write_text(GUARD)
    return path


def test_a_version_that_answers_the_same_comes_to_answer_all(door: Door, guard: Path) -> None:
    directory = door.fresh("same")
    with asked(door, "same") as statuses:
        result = roll_out(door, "same", guard)
    assert result.exit_code == 0, result.output
    ended = read_rollout(directory)
    assert ended is not None
    assert [event.stage for event in ended.history] == [Stage.SHADOW, Stage.CANARY, Stage.PROMOTED]
    assert "same: promoted: version 2 answers" in result.output
    assert set(statuses) == {200}


def test_one_that_answers_otherwise_goes_back_before_anybody_has_met_it(
    door: Door, guard: Path
) -> None:
    directory = door.fresh("moved")
    with asked(door, "moved") as statuses:
        result = roll_out(door, "moved", guard)
    assert result.exit_code == 1, result.output
    ended = read_rollout(directory)
    assert ended is not None
    assert [event.stage for event in ended.history] == [Stage.SHADOW, Stage.ROLLED_BACK]
    assert "had another value (allowed: 0.5)" in result.output
    assert set(statuses) == {200}
    assert door.predict("moved").json() == {"predictions": [2.5]}


def test_what_is_wrong_with_a_guard_is_told_before_anything_begins(door: Door, guard: Path) -> None:
    directory = door.fresh("same")
    guard.write_text("pair = 3")
    result = roll_out(door, "same", guard)
    assert result.exit_code == 1
    assert "pair is not known; did you mean pairs?" in result.output
    assert read_rollout(directory) is None

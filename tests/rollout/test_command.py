"""`sluice rollout`: what it says and does, and what is left of it when it is killed."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.cli import main
from service.rollout import state
from service.rollout.evidence import Evidence, evidence_directory, write_evidence
from sluice.wire.rollouts import ROLLOUT_FILE, Stage, read_rollout


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    for number in (1, 2):
        version = tmp_path / "digits" / str(number)
        version.mkdir(parents=True)
        (version / "saved_model.pb").write_bytes(b"")
    return tmp_path / "digits"


def run(digits: Path, *words: str) -> str:
    """What the command says; its errors too."""
    words = ("rollout", *words, f"--model-repository={digits.parent}")
    result = CliRunner().invoke(main, words)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.output


def test_a_version_comes_into_service_and_goes_again(digits: Path) -> None:
    assert "version 1 is held" in run(digits, "hold", "digits", "1")
    assert "2 is asked 1 of what 1 answers, and answers nobody" in run(
        digits, "start", "digits", "2"
    )
    assert "and 2 answers 0.1 of the requests" in run(digits, "canary", "digits", "0.1")
    assert "paused: version 1 answers" in run(digits, "pause", "digits")
    assert "and 2 answers 0.1 of the requests" in run(digits, "resume", "digits")
    assert "promoted: version 2 answers" in run(digits, "promote", "digits")
    assert "rolled back: version 1 answers" in run(digits, "abort", "digits")
    told = run(digits, "status", "digits")
    assert [line.split()[1] for line in told.splitlines()[1:7]] == [
        "shadow,",
        "canary",
        "paused,",
        "canary",
        "promoted,",
        "rolled",
    ]
    assert "no rollout; the newest version answers" in run(digits, "end", "digits")
    assert "no rollout; the newest version answers" in run(digits, "status", "digits")


def test_status_adds_up_what_gateways_have_seen(digits: Path) -> None:
    run(digits, "start", "digits", "2", "--live=1", "--shadow=0.5", "--by=header:X-User")
    rollout = read_rollout(digits)
    assert rollout is not None
    assert (rollout.shadow, rollout.by) == (0.5, "header:x-user")
    for worker in ("one", "other"):
        seen = Evidence(rollout.id, pairs=200, changed=1, changes={"class": 1}, dropped=5)
        for _ in range(100):
            seen.stable.add(0.004)
        write_evidence(evidence_directory(digits, rollout.id) / f"{worker}.json", seen)
    told = run(digits, "status", "digits")
    assert "Of 400 requests that both were asked 2 are answered otherwise: class 2" in told
    assert "10 more were not asked for want of room" in told
    assert "live               200       0       4.66    4.66" in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["digits", "7"], "digits has no version 7; there are: 1, 2"),
        (["digit", "2"], "did you mean digits?"),
        (["promote", "digits"], "nothing of digits is being rolled out"),
        (["canary", "digits", "2"], "2.0 is not in the range 0<=x<=1"),
        (["digits", "2", "--by=cookie"], "expected random, key or header:NAME, got 'cookie'"),
        (["digits"], "Missing argument 'VERSION'"),
    ],
)
def test_what_cannot_be_done_is_told(digits: Path, words: list[str], told: str) -> None:
    assert told in run(digits, *words)
    assert read_rollout(digits) is None


def test_a_file_of_somebody_else_is_told(digits: Path) -> None:
    (digits / ROLLOUT_FILE).write_text("[]")
    for words in (["status", "digits"], ["digits", "2"], ["promote", "digits"]):
        assert "rollout.json: it is not as expected" in run(digits, *words)
    assert (digits / ROLLOUT_FILE).read_text() == "[]"


MOVES = """
import sys, pathlib, itertools
from service.rollout import state
directory = pathlib.Path(sys.argv[1])
print("ready", flush=True)
for share in itertools.cycle((0.1, 0.2)):
    state.start(directory, 2)
    state.canary(directory, share)
    state.pause(directory)
    state.resume(directory)
    state.promote(directory)
    state.abort(directory)
"""


def test_whoever_is_killed_leaves_a_state_that_the_next_can_go_on_from(digits: Path) -> None:
    draw = random.Random(19)
    stages = set()
    for _ in range(5):
        command = [sys.executable, "-P", "-c", MOVES, str(digits)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ) as mover:
            assert mover.stdout is not None
            assert mover.stdout.readline()
            time.sleep(draw.uniform(0.01, 0.1))
            mover.send_signal(signal.SIGKILL)
        left = read_rollout(digits)  # whole, whatever was being written
        if left is None:
            continue
        stages.add(left.stage)
        assert left.history[-1].stage is left.stage
        assert left.labels["stable"] == left.answering
        if left.stage is Stage.PROMOTED:
            assert state.abort(digits).answering == 1
        elif left.stage is not Stage.ROLLED_BACK:
            assert state.abort(digits).stage is Stage.ROLLED_BACK  # nobody holds the lock
    assert stages

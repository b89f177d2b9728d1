"""`sluice rollout`: what it says and does, and what is left of it when it is killed."""

import getpass
import itertools
import multiprocessing
import random
import resource
import shutil
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from service.cli import main
from service.rollout import state
from service.rollout.evidence import Evidence, evidence_directory, write_evidence
from sluice.wire.rollout_files import ROLLOUT_FILE, read_rollout
from sluice.wire.rollouts import Stage


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
    assert "and 2 is asked 1 of the same for nobody" in run(digits, "start", "digits", "2")
    assert "and 2 answers 0.1 of the requests" in run(digits, "canary", "digits", "0.1")
    assert "paused: version 1 answers" in run(digits, "pause", "digits")
    assert "and 2 answers 0.1 of the requests" in run(digits, "resume", "digits")
    assert "promoted: version 2 answers" in run(digits, "promote", "digits")
    assert "rolled back: version 1 answers" in run(digits, "abort", "digits", "--why=complaints")
    told = run(digits, "status", "digits")
    assert f"  rolled back, complaints ({getpass.getuser()})\n" in told
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
    assert "10 more were not compared, for want of room or of an answer" in told
    assert "live               200       0       4.66    4.66" in told


def test_status_says_what_of_it_cannot_be_read(digits: Path) -> None:
    run(digits, "start", "digits", "2")
    rollout = read_rollout(digits)
    assert rollout is not None
    folder = evidence_directory(digits, rollout.id)
    write_evidence(folder / "one.json", Evidence(rollout.id, pairs=1))
    (folder / "other.json").symlink_to("other.json")
    loop = f"Error: {folder}/other.json: Too many levels of symbolic links\n"
    assert run(digits, "status", "digits") == loop
    shutil.rmtree(folder)
    folder.touch()
    assert run(digits, "status", "digits") == f"Error: {folder}: Not a directory\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["digits", "7"], "digits has no version 7; there are: 1, 2"),
        (["digit", "2"], "did you mean digits?"),
        (["promote", "digits"], "nothing of digits is being rolled out"),
        (["canary", "digits", "2"], "2.0 is not in the range 0<=x<=1"),
        (["digits", "2", "--by=cookie"], "expected random, key or header:NAME, got 'cookie'"),
        (["digits", "2", "--by=header:X User"], "expected random, key or header:NAME"),
        (["digits", "2", "--shadow=nan"], "shadow_share: expected a number from 0 to 1, got nan"),
        (["digits", "two"], "'two' is not a valid integer"),
        (["digits", "2", "--guard=nowhere.toml"], "'nowhere.toml' does not exist"),
        (["digits", "2", "--capture=nowhere"], "'nowhere' does not exist"),
        (["status", "digits", "2"], "unexpected extra argument"),
        (["digits"], "Missing argument 'VERSION'"),
    ],
)
def test_what_cannot_be_done_is_told(digits: Path, words: list[str], told: str) -> None:
    assert told in run(digits, *words)
    assert read_rollout(digits) is None


def test_what_cannot_be_written_is_told(digits: Path) -> None:
    """A disk that is full, and a repository that may not be written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        told = run(digits, "start", "digits", "2")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert told == f"Error: {digits}: File too large\n"
    assert read_rollout(digits) is None
    (digits / ".rollout.lock").unlink()
    (digits / ".rollout.lock").mkdir()
    assert run(digits, "start", "digits", "2") == f"Error: {digits}/.rollout.lock: Is a directory\n"


def test_a_file_of_somebody_else_is_told(digits: Path) -> None:
    (digits / ROLLOUT_FILE).write_text("[]")
    for words in (["status", "digits"], ["digits", "2"], ["promote", "digits"]):
        assert "rollout.json: it is not as expected" in run(digits, *words)
    assert (digits / ROLLOUT_FILE).read_text() == "[]"


def _move_on(directory: Path) -> None:
    for share in itertools.cycle((0.1, 0.2)):
        state.start(directory, 2)
        state.canary(directory, share)
        state.pause(directory)
        state.resume(directory)
        state.promote(directory)
        state.abort(directory)


def test_whoever_is_killed_leaves_a_state_that_the_next_can_go_on_from(digits: Path) -> None:
    draw, stages = random.Random(19), list[Stage]()
    while len(stages) < 5 or len({*stages}) == 1:
        assert len(stages) < 100, "whoever is killed has moved nothing"
        state.start(digits, 2)
        mover = multiprocessing.get_context("fork").Process(target=_move_on, args=(digits,))
        mover.start()
        time.sleep(draw.uniform(0.01, 0.1))
        mover.kill()
        mover.join()
        left = read_rollout(digits)  # whole, whatever was being written
        assert left is not None
        stages.append(left.stage)
        assert left.history[-1].stage is left.stage
        assert left.labels["stable"] == left.answering
        assert state.start(digits, 2).next == 2
        assert state.abort(digits).answering == 1  # nobody holds the lock

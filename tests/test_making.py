"""What is made once for all is whole, and as it was made."""

import fcntl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.making import make_once

ROOT = Path(__file__).parents[1]
MAKES = "import sys, pathlib; pathlib.Path(sys.argv[1], 'model').write_text('made')"
FAILS = "import sys, pathlib; pathlib.Path(sys.argv[1], 'half').touch(); sys.exit(1)"
COUNTS = "import sys; open(sys.argv[1] + '.count', 'a').write('made\\n')"
LINGERS = """
import pathlib, sys, time
directory = pathlib.Path(sys.argv[1])
(directory / "half").touch()
while not directory.with_name("go").exists():
    time.sleep(0.01)
(directory / "late").touch()
"""
ASKS = (
    "import sys; from tests.making import *; make_once(Path(sys.argv[1]), 'models', sys.argv[2:])"
)


@pytest.fixture
def made(tmp_path):
    return make_once(tmp_path, "models", ["-c", MAKES])


def test_the_next_who_asks_is_given_what_the_first_made(made, tmp_path):
    before = (made / "model").stat()
    assert make_once(tmp_path, "models", ["-c", FAILS]) == made
    assert (made / "model").stat() == before


def test_what_failed_is_made_anew(tmp_path):
    with pytest.raises(subprocess.CalledProcessError):
        make_once(tmp_path, "models", ["-c", FAILS])
    made = make_once(tmp_path, "models", ["-c", MAKES])
    assert [path.name for path in made.iterdir()] == ["model"]


def test_who_ask_at_the_same_time_are_given_the_same(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(make_once, tmp_path, "models", ["-c", COUNTS]) for _ in range(4)]
    assert {each.result() for each in asked} == {tmp_path / "models"}
    assert (tmp_path / "models.count").read_text() == "made\n"


def test_what_a_killed_process_had_made_of_it_is_made_anew_once_its_child_has_ended(tmp_path):
    killed = subprocess.Popen([sys.executable, "-c", ASKS, tmp_path, "-c", LINGERS], cwd=ROOT)
    while not (tmp_path / "models/half").exists():
        assert killed.poll() is None
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    try:
        with (tmp_path / "models.lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        (tmp_path / "go").touch()
    made = make_once(tmp_path, "models", ["-c", MAKES])
    assert [path.name for path in made.iterdir()] == ["model"]


@pytest.mark.parametrize(
    "change",
    [
        lambda made: (made / "model").write_text("edam"),
        lambda made: (made / "model").unlink(),
        lambda made: (made / "more").mkdir(),
    ],
    ids=["changed", "removed", "added"],
)
def test_who_asks_for_what_was_written_to_is_told(made, tmp_path, change):
    change(made)
    with pytest.raises(AssertionError, match="written to"):
        make_once(tmp_path, "models", ["-c", MAKES])

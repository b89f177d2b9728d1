"""A disk that fills up in the middle of a run: a real one, of some hundred kilobytes."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import pytest
from keras import layers

from tests.processes import leashed

pytestmark = pytest.mark.root

HOLD = 'mount -t tmpfs -o size=600k none "$1" && echo mounted && exec sleep infinity'
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def on_the_disk(tmp_path: Path) -> Iterator[Run]:
    """`on_the_disk(*command)` runs a command that sees a small disk at tmp_path, which nobody else
    does."""
    holder = subprocess.Popen(
        leashed("unshare", "--mount", "sh", "-c", HOLD, "sh", str(tmp_path)),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout
    assert holder.stdout.readline() == "mounted\n"
    enter = ["nsenter", "--mount", f"--target={holder.pid}"]
    yield lambda *command: subprocess.run(
        [*enter, *command], capture_output=True, text=True, check=False
    )
    holder.kill()
    holder.wait()
    holder.stdout.close()


def test_a_run_goes_on_once_there_is_room(on_the_disk: Run, tmp_path: Path) -> None:
    train = [sys.executable, "-P", "-m", "service.cli", "train", "digits", "--epochs=2"]
    train += ["--set=limit=200", f"--model-repository={tmp_path}"]

    def kept() -> list[str]:
        return sorted(on_the_disk("ls", "-A", tmp_path / "digits").stdout.split())

    first = on_the_disk(*train)
    assert first.returncode == 1
    assert "is full: a checkpoint needs " in first.stderr
    assert "are missing. Make room, or name another --model-repository. " in first.stderr
    assert "The same command with --resume goes on after the last finished epoch" in first.stderr
    assert kept() == [".training"], "nothing is half published"

    on_the_disk("mount", "-o", "remount,size=1100k", tmp_path)
    second = on_the_disk(*train, "--resume")
    assert second.returncode == 1
    assert "Epoch 2/2" in second.stdout and "Epoch 1/2" not in second.stdout
    assert "is full" in second.stderr and "--resume goes on" in second.stderr
    assert kept() == [".training"], "nothing is half published"

    on_the_disk("mount", "-o", "remount,size=20m", tmp_path)
    third = on_the_disk(*train, "--resume")
    assert third.returncode == 0, third.stderr
    assert "Epoch" not in third.stdout, "both were there"
    assert kept() == [".training", "1"]


def test_a_model_that_does_not_fit_is_refused_and_leaves_nothing(
    on_the_disk: Run, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("with room")
    image = keras.Input((28, 28, 1), name="image")
    wide = layers.Dense(500, activation="softmax")(layers.Flatten()(image))  # 1.6 MB
    model = keras.Model(image, wide)
    model.save(elsewhere / "wide.keras")
    model.export(elsewhere / "wide", verbose=False)
    command = [sys.executable, "-P", "-m", "service.cli", "publish"]
    for source in (["wide.keras", "--preprocess=scale01"], ["wide"]):
        told = on_the_disk(
            *command, elsewhere / source[0], *source[1:], f"--model-repository={tmp_path}"
        )
        assert told.returncode == 1
        assert "Traceback" not in told.stderr
        line = told.stderr.splitlines()[-1]
        assert "is full" in line and "Make room, or name another --model-repository" in line
        assert on_the_disk("ls", "-A", tmp_path).stdout == ""

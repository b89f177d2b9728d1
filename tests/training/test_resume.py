"""A run that was cut off goes on as if it had not been."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

import training
from training.errors import CannotResume
from training.fitting import fit
from training.workspace import resumable

SETTINGS = {"limit": "320", "shift": "0.05"}
SCRIPT = """
import sys, training
from pathlib import Path
_, repository, mode = sys.argv
training.train("digits", model_repository=Path(repository), epochs=4, resume=mode == "resume",
               settings={"limit": "640", "deterministic": "true"})
"""


def curves(version):
    return json.loads((version / "metrics.json").read_text())["curves"]


@pytest.fixture
def cut_off(monkeypatch):
    """Epochs fail from the third on; calling it heals them."""
    whole = fit._train_epoch

    def failing(trainer, dataset, recipe, epoch, *, verbose):
        if epoch == 2:
            raise KeyboardInterrupt
        return whole(trainer, dataset, recipe, epoch, verbose=verbose)

    monkeypatch.setattr(fit, "_train_epoch", failing)
    return lambda: monkeypatch.setattr(fit, "_train_epoch", whole)


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, cut_off):
    asked = {"epochs": 3, "settings": SETTINGS}
    with pytest.raises(KeyboardInterrupt):
        training.train("digits", model_repository=tmp_path, name="cut", **asked)
    cut_off()
    resumed = training.train("digits", model_repository=tmp_path, name="cut", resume=True, **asked)
    whole = training.train("digits", model_repository=tmp_path, name="whole", **asked)
    for measure, values in curves(whole).items():
        assert curves(resumed)[measure] == pytest.approx(values, rel=1e-6, abs=1e-6), measure
    assert {entry.name for entry in (resumed.parent / ".training").iterdir()} == {"tensorboard"}


def test_other_settings_are_not_resumed(tmp_path, cut_off):
    with pytest.raises(KeyboardInterrupt):
        training.train("digits", model_repository=tmp_path, epochs=3, settings=SETTINGS)
    cut_off()
    with pytest.raises(CannotResume, match=r"learning_rate was 0\.002, is 0\.1"):
        training.train(
            "digits",
            model_repository=tmp_path,
            epochs=3,
            resume=True,
            settings={**SETTINGS, "learning_rate": "0.1"},
        )


def test_there_must_be_something_to_resume(tmp_path):
    with pytest.raises(CannotResume, match="nothing to resume"):
        training.train(
            "digits", model_repository=tmp_path, epochs=1, resume=True, settings=SETTINGS
        )


@pytest.mark.slow
def test_after_kill_9_in_the_middle_of_an_epoch(tmp_path):
    def start(name, mode):
        return subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tmp_path / name), mode],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )

    with start("killed", "new") as run:
        for line in run.stdout:
            if "Epoch 3/4" in line:
                time.sleep(0.05)
                run.send_signal(signal.SIGKILL)
    assert run.returncode == -signal.SIGKILL
    assert not list((tmp_path / "killed").glob("*/1"))
    for name, mode in (("killed", "resume"), ("whole", "new")):
        with start(name, mode) as run:
            run.communicate()
        assert run.returncode == 0
    [killed, whole] = [
        json.loads((tmp_path / name / "digits/1/metrics.json").read_text())
        for name in ("killed", "whole")
    ]
    assert killed["heads"] == whole["heads"]
    for measure, values in whole["curves"].items():
        assert killed["curves"][measure] == pytest.approx(values, rel=1e-6, abs=1e-6), measure


@pytest.fixture
def heard():
    """Ctrl-C is, also where pytest runs in a script's background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
def test_an_interrupt_that_tensorflow_makes_another_error_of_is_one(tmp_path, capsys):
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), resumable(tmp_path):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise ValueError("Argument `structure` is a scalar")
    assert capsys.readouterr().out == (
        "\nInterrupted. No epoch was finished: the same command starts again\n"
    )
    assert signal.getsignal(signal.SIGINT) is handler
    with pytest.raises(ValueError, match="no interrupt"), resumable(tmp_path):
        raise ValueError("no interrupt")


@pytest.mark.slow
def test_ctrl_c_in_the_first_epoch_says_how_it_goes_on(tmp_path):
    command = [sys.executable, "-P", "-m", "service.cli", "train", "digits"]
    with subprocess.Popen(
        # Where pytest runs in a script's background, that signal is ignored below it.
        ["env", "--default-signal=INT", *command, "--model-repository", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as run:
        said = ""
        for line in run.stdout:
            said += line
            if "Epoch 1/" in line:
                run.send_signal(signal.SIGINT)
    assert run.returncode == 1, said
    assert "Interrupted. No epoch was finished: the same command starts again\n" in said
    assert said.endswith("Aborted!\n")
    assert "Traceback" not in said
    assert not list(tmp_path.glob("digits/1"))

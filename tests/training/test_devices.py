"""Several devices and several machines together train as one."""

import functools
import json
import os
import subprocess
import sys

import pytest

import training
from tests.processes import free_port
from training.errors import BadSetting, NoGpu
from training.fitting import devices

# Without random layers, which draw on each device on its own: the same numbers but for rounding.
ALIKE = "digits"
# With what each device has for itself: a batch normalisation's statistics, a generator's noise.
APART = ["resnet_small", "gan"]

TRAIN = """
import dataclasses, sys, training
from pathlib import Path
_, name, repository = sys.argv
size = {"digits": {}, "resnet_small": {"width": 4, "depths": (1, 1)}, "gan": {"width": 4}}[name]
print("published", training.train(
    dataclasses.replace(training.RECIPES[name], source="digits", **size),
    model_repository=Path(repository), epochs=3,
    settings={"shift": "0", "flip": "no", "limit": "640", "batch_size": "64"}))
"""
TWO_DEVICES = """
import tensorflow as tf
[cpu] = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from training.fitting import devices
devices.strategy_for = lambda recipe: tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
"""


@pytest.mark.parametrize(
    ("promised", "kind", "words"),
    [
        ("64", NoGpu, "sees .* of the 64 GPUs that SLUICE_GPUS promises: train in the image"),
        ("all", BadSetting, "SLUICE_GPUS is 'all': expected the number"),
    ],
)
def test_a_run_without_the_gpus_it_was_promised_ends_at_once(
    tmp_path, monkeypatch, promised, kind, words
):
    monkeypatch.setenv(devices.GPUS_VARIABLE, promised)
    with pytest.raises(kind, match=words) as caught:
        training.train("digits", model_repository=tmp_path)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def start(script, name, repository, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", script, name, str(repository)],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **environment},
    )


def outcome(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def curves(name, repository):
    return json.loads((repository / name / "1" / "metrics.json").read_text())["curves"]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The curves of a recipe's run on one device of one machine."""

    @functools.cache
    def trained(name):
        repository = tmp_path_factory.mktemp("one")
        outcome(start(TRAIN, name, repository))
        return curves(name, repository)

    return trained


def train_on_two_machines(name, repository):
    """What each of them printed."""
    workers = [f"localhost:{port}" for port in (free_port(), free_port())]
    processes = [
        start(
            TRAIN,
            name,
            repository,
            TF_CONFIG=json.dumps(
                {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
            ),
        )
        for index in range(2)
    ]
    return [outcome(process) for process in processes]


def train_on_two_devices(name, repository):
    outcome(start(TWO_DEVICES + TRAIN, name, repository))


@pytest.mark.slow
def test_two_machines_train_as_one(tmp_path, one):
    outputs = train_on_two_machines(ALIKE, tmp_path)
    assert f"published {tmp_path / 'digits' / '1'}" in outputs[0]
    assert "published None" in outputs[1] and "Epoch" not in outputs[1]
    for measure, values in curves(ALIKE, tmp_path).items():
        assert values == pytest.approx(one(ALIKE)[measure], rel=1e-3), measure


@pytest.mark.slow
def test_two_devices_train_as_one(tmp_path, one):
    train_on_two_devices(ALIKE, tmp_path)
    for measure, values in curves(ALIKE, tmp_path).items():
        assert values == pytest.approx(one(ALIKE)[measure], rel=1e-3), measure


@pytest.mark.slow
@pytest.mark.parametrize("train", [train_on_two_devices, train_on_two_machines])
@pytest.mark.parametrize("name", APART)
def test_what_each_device_has_for_itself_is_published_whole(tmp_path, one, name, train):
    """That the version appears says that its answers are the trained model's own."""
    train(name, tmp_path)
    losses = curves(name, tmp_path)["loss"]
    assert losses == pytest.approx(one(name)["loss"], rel=0.1)
    assert losses[-1] < losses[0]

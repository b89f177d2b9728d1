"""Several devices and several machines together train as one."""

import json
import os
import socket
import subprocess
import sys

import pytest

TRAIN = """
import sys, training
from pathlib import Path
print("published", training.train(
    "digits", model_repository=Path(sys.argv[1]), epochs=3,
    settings={"shift": "0", "limit": "640", "batch_size": "64"}))
"""
MIRRORED = (
    """
import tensorflow as tf
[cpu] = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from training.fitting import devices
devices.prepare = lambda recipe: tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
"""
    + TRAIN
)


def start(script, repository, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", script, str(repository)],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **environment},
    )


def outcome(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def curves(repository):
    return json.loads((repository / "digits/1/metrics.json").read_text())["curves"]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The same run on one device of one machine."""
    repository = tmp_path_factory.mktemp("one")
    outcome(start(TRAIN, repository))
    return curves(repository)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("localhost", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.mark.slow
def test_two_machines_train_as_one(tmp_path, one):
    workers = [f"localhost:{port}" for port in free_ports(2)]
    processes = [
        start(
            TRAIN,
            tmp_path,
            TF_CONFIG=json.dumps(
                {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
            ),
        )
        for index in range(2)
    ]
    outputs = [outcome(process) for process in processes]
    assert f"published {tmp_path / 'digits' / '1'}" in outputs[0]
    assert "published None" in outputs[1] and "Epoch" not in outputs[1]
    for measure, values in curves(tmp_path).items():
        assert values == pytest.approx(one[measure], rel=1e-3), measure


@pytest.mark.slow
def test_two_devices_train_as_one(tmp_path, one):
    outcome(start(MIRRORED, tmp_path))
    for measure, values in curves(tmp_path).items():
        assert values == pytest.approx(one[measure], rel=1e-3), measure

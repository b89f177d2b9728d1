"""A run is the same whatever keras.json, variables and other code say of Keras."""

import json
import os
import subprocess
import sys

import keras
import pytest

import models
from training.surroundings.keras_state import pinned

TRAIN = """
import json, sys, training
version = training.train(
    "digits", model_repository=sys.argv[1], epochs=1, settings={"limit": 64}
)
print(json.dumps(json.loads((version / "metrics.json").read_text())["curves"]))
"""


@pytest.fixture
def theirs():
    """Another value of each."""
    policy = keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_epsilon(1e-3)
    keras.config.set_image_data_format("channels_first")
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")
    keras.config.set_dtype_policy(policy)


def state():
    return (
        keras.config.floatx(),
        keras.config.epsilon(),
        keras.config.image_data_format(),
        keras.config.dtype_policy().name,
    )


@pytest.mark.usefixtures("theirs")
def test_ours_hold_within_and_theirs_after(capsys):
    before = state()
    with pinned():
        assert state() == ("float32", 1e-7, "channels_last", "float32")
    assert state() == before
    said = capsys.readouterr().out
    for name in ("floatx is float64", "epsilon is 0.001", "image_data_format is channels_first"):
        assert f"Keras: {name}; this run uses" in said


def test_nothing_is_said_where_nothing_differs(capsys):
    with pinned():
        pass
    assert capsys.readouterr().out == ""


def test_variables_are_ours_within(monkeypatch, capsys):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setenv("KERAS_MAX_EPOCHS", "3")
    with pinned():
        assert os.environ["KERAS_BACKEND"] == "tensorflow"
        assert "KERAS_MAX_EPOCHS" not in os.environ
    assert os.environ["KERAS_BACKEND"] == "jax"
    said = capsys.readouterr().out
    assert "KERAS_BACKEND=jax is not heeded" in said and "KERAS_MAX_EPOCHS=3" in said


@pytest.mark.usefixtures("theirs")
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("cnn_functional", {"filters": 4}),
        ("resnet50", {"width": 4, "depths": (1, 1)}),
        ("vit_b16", {"width": 4, "depth": 1, "heads": 2, "mlp_width": 8}),
        ("unet", {"width": 4, "depth": 2}),
        ("gan", {"width": 4}),
    ],
)
def test_no_model_takes_its_rows_for_its_channels(name, sizes):
    """Built under channels_first, each has the layers that it has under channels_last."""
    model = models.build(name, (32, 32, 1), 3, **sizes)
    for part in models.parts(model).values():
        for layer in part._flatten_layers():
            assert getattr(layer, "data_format", "channels_last") == "channels_last", layer.name
    assert keras.config.image_data_format() == "channels_first"


def run(script, *arguments, home, **variables):
    environment = {**os.environ, "KERAS_HOME": str(home), "TF_CPP_MIN_LOG_LEVEL": None, **variables}
    return subprocess.run(
        [sys.executable, "-P", "-c", script, *map(str, arguments)],
        env={name: value for name, value in environment.items() if value is not None},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_run_under_another_keras_json_is_the_run_without(tmp_path):
    other = {"image_data_format": "channels_first", "floatx": "float16", "epsilon": 1e-2}
    curves = []
    for home, said in (("none", {}), ("theirs", {**other, "backend": "jax"})):
        (tmp_path / home).mkdir()
        (tmp_path / home / "keras.json").write_text(json.dumps(said))
        done = run(TRAIN, tmp_path / home / "repository", home=tmp_path / home)
        assert done.returncode == 0, done.stderr
        curves.append(json.loads(done.stdout.splitlines()[-1]))
    assert f"channels_first in {tmp_path}/theirs/keras.json; this run uses" in done.stdout
    assert "backend is jax" in done.stdout
    assert done.stderr == ""  # nor any of TensorFlow's notices
    for measure, values in curves[0].items():
        assert curves[1][measure] == pytest.approx(values, rel=1e-5), measure


def test_what_tensorflow_says_is_sieved_and_crashes_are_not(tmp_path):
    script = (
        "import os, sys\n"
        "from training.surroundings.tensorflow_log import quiet\n"
        "with quiet():\n"
        "    os.write(2, b'I0000 00:00:1795637641.37 23 port.cc:153] oneDNN is on\\n')\n"
        "    os.write(2, b'E0000 00:00:1795637641.37 23 cuda_platform.cc:52] failed cuInit\\n')\n"
        "    os.write(2, b'E0000 00:00:1795637641.37 23 disk.cc:1] no space\\n')\n"
        "    print('ours', file=sys.stderr)\n"
        "    os.abort()\n"
    )
    done = run(script, home=tmp_path)
    assert [line.split("] ")[-1] for line in done.stderr.splitlines()] == ["no space", "ours"]
    asked = run(script, home=tmp_path, TF_CPP_MIN_LOG_LEVEL="0")
    assert "oneDNN" in asked.stderr and "cuInit" in asked.stderr


@pytest.mark.parametrize("said", ['{"floatx": "bfloat8"}', "[]"])
def test_a_keras_json_that_keras_cannot_read_is_named(tmp_path, said):
    (tmp_path / "keras.json").write_text(said)
    script = (
        "import training\n"
        "try: training.train('digits', model_repository='r')\n"
        "except training.TrainingError as error: print(error)"
    )
    done = run(script, home=tmp_path)
    assert f"what is in {tmp_path}/keras.json" in done.stdout

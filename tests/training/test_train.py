"""`train` as the command line calls it, on real digits."""
import json
import subprocess
import sys

import pytest

import training
from training.errors import UnknownName


def test_train_publishes_what_it_trained(tmp_path, capsys):
    version = training.train("digits", model_repository=tmp_path, epochs=2, batch_size=64,
                             settings={"learning_rate": "0.01"})
    facts = json.loads((version / "metrics.json").read_text())
    assert version == tmp_path / "digits" / "1"
    assert facts["recipe"]["epochs"] == 2 and facts["recipe"]["learning_rate"] == 0.01
    assert [len(curve) for curve in facts["curves"].values()] == [2] * len(facts["curves"])
    assert set(facts["curves"]) == {"loss", "label_accuracy", "validation_loss",
                                    "validation_label_accuracy"}
    assert facts["accuracy"] > 0.5
    assert "Epoch 2/2" in capsys.readouterr().out


def test_the_same_seed_gives_the_same_run(tmp_path):
    versions = [training.train("digits", model_repository=tmp_path, epochs=1, name=name)
                for name in ("a", "b")]
    [first, second] = [json.loads((version / "metrics.json").read_text())["curves"]["loss"]
                       for version in versions]
    assert first == pytest.approx(second, rel=1e-5)


def test_an_unknown_model_is_answered_with_the_nearest_first(tmp_path):
    with pytest.raises(UnknownName, match="nearest first: cnn_functional"):
        training.train("digits", model_repository=tmp_path, settings={"model": "cnn_functonal"})


def test_importing_training_loads_no_tensorflow():
    script = "import sys, training; print({'tensorflow', 'keras', 'numpy'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"

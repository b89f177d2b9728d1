"""`train` as the command line calls it, on real digits."""

import contextlib
import dataclasses
import io
import json
import subprocess
import sys

import keras
import pytest
import tensorflow as tf
from tensorflow.core.util import event_pb2

import training
from training.build import build
from training.errors import Diverged, UnknownName
from training.fitting.fit import fit
from training.fitting.schedule import CosineDecayOnce
from training.fitting.trainer import Trainer
from training.recipes import RECIPES

SMALL = {"limit": "200"}


def facts_of(version):
    return json.loads((version / "metrics.json").read_text())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(version, what was printed)"""
    repository = tmp_path_factory.mktemp("repository")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        version = training.train(
            "digits",
            model_repository=str(repository),
            epochs=2,
            batch_size=64,
            settings={"learning_rate": "0.01"},
        )
    return version, printed.getvalue()


def test_train_publishes_what_it_trained(trained):
    version, printed = trained
    facts = facts_of(version)
    assert version.parts[-2:] == ("digits", "1")
    assert facts["recipe"]["epochs"] == 2 and facts["recipe"]["learning_rate"] == 0.01
    assert [len(curve) for curve in facts["curves"].values()] == [2] * len(facts["curves"])
    assert set(facts["curves"]) == {
        "loss",
        "label_accuracy",
        "validation_loss",
        "validation_label_accuracy",
    }
    assert facts["accuracy"] > 0.5
    assert facts["command"] == (
        "sluice train digits --set epochs=2 --set batch_size=64 --set learning_rate=0.01"
    )
    assert "Epoch 2/2" in printed
    said = f"label accuracy {facts['accuracy']:.1%} on 360 held-out images (always answering '3': "
    assert said in printed
    assert f"Pictures in {version}: confusion.png, mistakes.png, training.png" in printed
    card = (version / "model-card.md").read_text()
    assert card.startswith("# digits\n") and f"    {facts['command']}\n" in card
    assert facts["published"] in card and "| 3 | 0." in card


def test_the_same_seed_gives_the_same_run(tmp_path):
    versions = [
        training.train("digits", model_repository=tmp_path, epochs=1, name=name, settings=SMALL)
        for name in ("a", "b")
    ]
    [first, second] = [facts_of(version)["curves"]["loss"] for version in versions]
    assert first == pytest.approx(second, rel=1e-5)


def test_it_stops_early_and_publishes_the_best_weights(tmp_path):
    version = training.train(
        "digits",
        model_repository=tmp_path,
        epochs=40,
        settings={**SMALL, "patience": "1", "learning_rate": "0.05"},
    )
    losses = facts_of(version)["curves"]["validation_loss"]
    assert len(losses) < 40
    assert losses.index(min(losses)) == len(losses) - 2


def test_a_loss_that_is_no_number_is_an_error(tmp_path, dataset):
    # Above what `train` takes: within its bounds it depends on the data.
    recipe = dataclasses.replace(RECIPES["digits"], learning_rate=1e30, epochs=2)
    strategy = tf.distribute.get_strategy()
    with pytest.raises(Diverged, match="learning_rate below 1e"):
        fit(build(recipe, dataset), dataset, recipe, strategy, tmp_path)


def test_tensorboard_can_read_the_curves(trained):
    version, _ = trained
    curves = facts_of(version)["curves"]
    for run, prefix in (("train", ""), ("validation", "validation_")):
        logged = {}
        # One file: of several, TensorBoard shows the last by name.
        [file] = (version.parent / ".training" / "tensorboard" / run).iterdir()
        events = [
            event_pb2.Event.FromString(raw.numpy()) for raw in tf.data.TFRecordDataset(str(file))
        ]
        for event in events:
            for value in event.summary.value:
                logged.setdefault(value.tag, []).append(value.simple_value)
        assert logged["loss"] == pytest.approx(curves[f"{prefix}loss"])
        assert set(logged) == {"loss", "label_accuracy"}


def test_an_unknown_model_is_answered_with_the_nearest_first(tmp_path):
    with pytest.raises(UnknownName, match="nearest first: cnn_functional"):
        training.train("digits", model_repository=tmp_path, settings={"model": "cnn_functonal"})


def test_importing_training_loads_no_tensorflow():
    script = "import sys, training; print({'tensorflow', 'keras'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


def test_a_step_computes_its_learning_rate_once_however_many_weights_decay(dataset):
    recipe = dataclasses.replace(RECIPES["mlp"], weight_decay=0.01, units=(4, 4, 4))
    trainer = Trainer(
        build(recipe, dataset), recipe, dataset.heads, tf.distribute.get_strategy(), 8, 4
    )
    batch = dataset.train.take(slice(8))
    step = trainer._train_step.get_concrete_function(batch.inputs, batch.targets, tf.ones(8))
    kinds = [each.type for each in step.graph.get_operations()]
    assert kinds.count("StatelessIf") == 1  # rising or falling
    assert kinds.count("AssignSubVariableOp") > 8  # each weight is changed, and decays


def test_the_rate_is_that_of_keras():
    sizes = {"initial_learning_rate": 1e-5, "decay_steps": 95, "warmup_target": 1e-3}
    expected = keras.optimizers.schedules.CosineDecay(**sizes, warmup_steps=5)
    ours = CosineDecayOnce(**sizes, warmup_steps=5)
    rates = tf.function(lambda step: (ours(step), ours(step), expected(step)))
    for at in (0, 1, 5, 6, 50, 99, 100, 150):
        first, second, keras_own = rates(tf.constant(at))
        assert first == second == keras_own == ours(at)

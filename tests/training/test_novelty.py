"""How unlike the training images a picture is: the statistics, and the output that tells."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import requests
import tensorflow as tf
from keras import layers
from sklearn.metrics import roc_auc_score

import models
import training
from sluice.wire.contract import ENCODED_SIGNATURE
from sluice.wire.saved_model import read_signatures
from training.data.heads import Classes, Number
from training.data.load import load
from training.inference import predict
from training.novelty import spread as spread_module
from training.novelty.fitting import features_of, fit
from training.novelty.spread import Spread
from training.publishing import checks
from training.publishing.saved_model import Session
from training.publishing.saved_model import write as write_saved_model
from training.publishing.trials import encode_png
from training.recipes import RECIPES

NOISE = np.random.default_rng(0).integers(256, size=(8, 8, 1), dtype=np.uint8)
HEADS = {"label": Classes(("cat", "dog"))}


def files(images: np.ndarray) -> np.ndarray:
    return np.array([encode_png(image) for image in images], object)


def told(version, images: np.ndarray) -> np.ndarray:
    with Session(version) as session:
        return session.run(ENCODED_SIGNATURE, {"image": files(images)})["novelty"]


class TestSpread:
    """Toy features: a flat cloud in training, and a cluster planted beside it."""

    RNG = np.random.default_rng(0)
    SHAPE = np.linspace(0.1, 3, 20)

    def cloud(self, count: int) -> np.ndarray:
        return self.RNG.normal(size=(count, 20)) * self.SHAPE

    def test_what_lies_apart_is_told_and_what_does_not_is_not(self):
        spread = Spread.of(self.cloud(2000))
        held_out, more = self.cloud(2000), self.cloud(4000)
        unit = spread.in_units_of(np.quantile(spread.distances(held_out), 0.995))
        planted = self.cloud(500) + np.eye(20)[0]  # 10 deviations along the narrowest direction
        assert (unit.distances(more) > 1).mean() <= 0.01
        assert (unit.distances(planted) > 1).mean() > 0.99

    def test_what_the_largest_directions_do_not_see_the_rest_does(self, monkeypatch):
        monkeypatch.setattr(spread_module, "RANK", 5)
        low = self.RNG.normal(size=(2, 2000, 5)) @ self.RNG.normal(size=(5, 20))
        usual, more = low + 0.1 * self.RNG.normal(size=low.shape)
        spread = Spread.of(usual)
        assert spread.directions.shape == (20, 5)
        beside = more + np.linalg.svd(usual, full_matrices=False)[2][10]
        scores = spread.distances(np.concatenate([more, beside]))
        assert roc_auc_score([0] * 2000 + [1] * 2000, scores) > 0.99

    def test_a_feature_that_never_changed_is_a_number_all_the_same(self):
        flat = self.cloud(100)
        flat[:, 3] = 7
        assert np.isfinite(Spread.of(flat).distances(flat + 1)).all()


@pytest.mark.parametrize(
    ("name", "shape", "options", "count"),
    [
        ("cnn_sequential", (8, 8, 1), {"filters": 4, "units": 3}, 8),  # means and deviations
        ("mlp", (8, 8, 1), {"units": (5,)}, 5),  # no maps: what the last layer takes
        (
            "vit_b16",
            (8, 8, 1),
            {"patch": 4, "width": 6, "depth": 1, "heads": 2, "mlp_width": 4},
            12,
        ),
    ],
)
def test_what_is_looked_at_is_the_last_maps_of_each_family(name, shape, options, count):
    model = models.build(name, shape, 2, **options)
    images = {"image": np.random.default_rng(0).integers(256, size=(3, *shape))}
    assert features_of(model, HEADS, images).shape == (3, count)


def test_a_model_within_a_model_and_one_of_ones_own_are_looked_into():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv, self.pool = layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()
            self.last = layers.Dense(2, activation="softmax")

        def call(self, image):
            return self.last(self.pool(self.conv(image)))

    image = keras.Input((8, 8, 1), name="image")
    model = keras.Model(image, {"label": Own()(layers.Rescaling(1 / 255)(image))})
    assert features_of(model, HEADS, {"image": np.zeros((2, 8, 8, 1))}).shape == (2, 8)


def test_every_picture_of_a_model_with_two_counts():
    model = models.build("two_view", (8, 4, 1), 2, width=4, units=4)
    rng = np.random.default_rng(0)
    left, right = rng.integers(256, size=(2, 5, 8, 4, 1))
    one = features_of(model, HEADS, {"left": left, "right": right})
    other = features_of(model, HEADS, {"left": left, "right": left})
    changed = (one != other).any(axis=0)
    assert changed.any() and not changed.all()


@pytest.mark.parametrize(
    ("heads", "held_out", "reason"),
    [
        ({"label": Number()}, 200, "no head names classes"),
        (HEADS, 99, "99 images held out are too few"),
        ({**HEADS, "novelty": Number()}, 200, "a novelty of its own"),
    ],
)
def test_where_it_cannot_be_had_a_sentence_says_why(heads, held_out, reason):
    model = models.build("mlp", (8, 8, 1), 2, units=(4,))
    images = np.random.default_rng(0).integers(256, size=(200, 8, 8, 1))
    assert reason in fit(model, heads, {"image": images}, {"image": images[:held_out]})


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The recipe after some epochs, which takes seconds."""
    repository = tmp_path_factory.mktemp("repository")
    return training.train("digits", model_repository=repository, epochs=4, settings={"units": "16"})


def test_a_version_tells_what_is_no_digit(digits):
    held_out = load(RECIPES["digits"], None, digits).test.inputs["image"]
    facts = json.loads((digits / "metrics.json").read_text())["novelty"]
    alarms = told(digits, held_out) > 1
    assert alarms.mean() == pytest.approx(facts["false_alarms"]) and alarms.mean() < 0.03
    noise = np.random.default_rng(0).integers(256, size=(100, 8, 8, 1), dtype=np.uint8)
    assert (told(digits, noise) > 1).mean() > 0.95
    assert told(digits, noise).dtype == np.float32
    with Session(digits) as session:
        none = session.run(ENCODED_SIGNATURE, {"image": np.zeros(0, object)})
    assert none["novelty"].shape == (0,)


@pytest.mark.slow
def test_digits_are_no_garments(quickly_trained):
    model, garments = quickly_trained("fashion")
    test = garments.test.inputs["image"]
    novelty = fit(model, garments.heads, garments.train.inputs, {"image": test[:4000]})
    digits = load(RECIPES["digits"], None, Path()).train.inputs["image"]
    larger = tf.image.resize(digits, test.shape[1:3], antialias=True).numpy().round()
    usual, strange = (
        novelty.scores(model, garments.heads, {"image": each}) for each in (test[4000:], larger)
    )
    right = np.repeat([0, 1], [len(usual), len(strange)])
    assert roc_auc_score(right, np.concatenate([usual, strange])) >= 0.95
    assert (usual > 1).mean() <= 0.01


def test_the_card_says_what_one_means(digits):
    card = (digits / "model-card.md").read_text()
    assert "99.5% of 180 images held out lie below" in card
    assert "False alarms on 360 test images" in card


def test_a_setting_leaves_it_out_and_nobody_breaks(digits, tmp_path):
    version = training.train(
        "digits",
        model_repository=tmp_path,
        epochs=1,
        settings={"units": "4", "novelty": "false"},
    )
    assert "novelty" not in read_signatures(version)[ENCODED_SIGNATURE].outputs
    assert "Not given: it was left out" in (version / "model-card.md").read_text()
    checks.check_compatible(version, previous=digits)
    checks.check_compatible(digits, previous=version)


def test_statistics_survive_being_written(tmp_path):
    model = models.build("cnn_functional", (8, 8, 1), 2, filters=4, units=4)
    images = np.random.default_rng(0).integers(256, size=(300, 8, 8, 1), dtype=np.uint8)
    novelty = fit(model, HEADS, {"image": images[:200]}, {"image": images[200:]})
    expected = novelty.scores(model, HEADS, {"image": images})
    model.layers[1].trainable = False
    write_saved_model(model, HEADS, tmp_path / "1", spread=novelty.spread)
    del novelty
    np.testing.assert_allclose(told(tmp_path / "1", images), expected, rtol=1e-3)
    answers = predict(model, {"image": images})
    with Session(tmp_path / "1") as session:
        label = session.run(ENCODED_SIGNATURE, {"image": files(images)})["label"]
    np.testing.assert_allclose(label, answers["label"], rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    images = np.random.default_rng(0).integers(100, 156, size=(200, 8, 8, 1), dtype=np.uint8)
    path = tmp_path_factory.mktemp("samples") / "samples.npz"
    np.savez(path, image=images)
    return path


@pytest.fixture(scope="module")
def toy():
    keras.utils.set_random_seed(0)
    return models.build("cnn_functional", (8, 8, 1), 2, filters=4, units=4)


class TestAdopted:
    """A model that was not trained here learns it from the samples."""

    def test_enough_samples_teach_it(self, toy, samples, tmp_path):
        version = training.publish(toy, model_repository=tmp_path, samples=[samples])
        black = np.zeros((4, 8, 8, 1), np.uint8)
        assert (told(version, black) > 1).all()
        assert "unlike 100 images" in (version / "model-card.md").read_text()
        assert len([*(version / "samples").iterdir()]) == 8

    def test_without_them_or_without_wanting_it_the_card_says_why(self, toy, samples, tmp_path):
        none = training.publish(toy, model_repository=tmp_path)
        assert "Not given: no samples were given" in (none / "model-card.md").read_text()
        unwanted = training.publish(
            toy, model_repository=tmp_path, samples=[samples], novelty=False
        )
        assert "Not given: it was left out" in (unwanted / "model-card.md").read_text()
        for version in (none, unwanted):
            assert "novelty" not in read_signatures(version)[ENCODED_SIGNATURE].outputs


def test_what_is_asked_over_http_is_counted_in_the_metrics(
    digits, launch_modelserver, launch_gateway
):
    server = launch_modelserver(f"--model_repository={digits.parent.parent}")
    url = launch_gateway(server.address).url
    for body in (next((digits / "samples").glob("*.png")).read_bytes(), encode_png(NOISE)):
        answer = requests.post(f"{url}/v1/models/digits:predict", data=body, timeout=60)
        assert answer.status_code == 200, answer.text
        [row] = answer.json()["predictions"]
        assert (row["novelty"] > 1) == (body == encode_png(NOISE))
        assert {*row} == {"label", "label_classes", "label_scores", "novelty"}
    said = requests.get(f"{url}/metrics", timeout=60).text
    assert 'sluice_novelty_count{model="digits",version="1"} 2.0' in said
    assert 'sluice_novelty_bucket{le="1.0",model="digits",version="1"} 1.0' in said

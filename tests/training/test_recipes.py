"""Every recipe, from its settings to a published version, on toy data of the right kind."""
import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

import models
import training
from training import load as loading
from training.dataset import Dataset, Split
from training.heads import Classes
from training.recipes import RECIPES
from training.saved_model import Session

TOY = {"mlp": {"units": "8,8"}, "cnn_sequential": {"filters": "4"}, "fashion": {"units": "8"},
       "two_view": {"width": "4"}, "multi_head": {"width": "4"}, "digit_sum": {"width": "4"},
       "unet": {"width": "2"}, "gan": {"width": "4"},
       "vit_small": {"width": "8", "depth": "1", "heads": "2", "mlp_width": "8"},
       "resnet_small": {"width": "2", "depths": "1,1"}}
FULL_SIZE = {"vgg16": {"width": "2", "units": "4"}, "vgg19": {"width": "2", "units": "4"},
             "resnet50": {"width": "2"}, "resnet101": {"width": "2"}, "resnet152": {"width": "2"},
             "inception_v3": {"width": "0.05"}, "vit_b16": {"depth": "1"}}


@pytest.fixture
def toy_source(monkeypatch):
    """Discs on black, so that masks and coverage mean something."""
    def load(*_):
        rng = np.random.default_rng(0)
        y, x = np.mgrid[:28, :28]
        radius = rng.integers(4, 12, size=40)[:, None, None]
        images = (np.hypot(y - 14, x - 14) < radius)[..., None] * rng.integers(
            100, 255, (40, 28, 28, 1))
        whole = Split({"image": images.astype(np.uint8)}, {"label": np.arange(40) % 10})
        return Dataset(whole, whole.take(slice(10)), whole.take(slice(20)),
                       {"label": Classes(tuple("0123456789"))}, "discs")

    monkeypatch.setattr(loading, "SOURCES", {"fashion": load, "digits": load})


def train_toy(name, sizes, repository):
    return training.train(name, model_repository=repository, epochs=1, batch_size=8,
                          settings={**sizes, "limit": "16"})


@pytest.mark.usefixtures("toy_source")
@pytest.mark.parametrize("name", [
    "digit_sum", "unet", "gan",
    *(pytest.param(name, marks=pytest.mark.slow) for name in
      ("mlp", "cnn_sequential", "fashion", "two_view", "multi_head", "vit_small", "resnet_small",
       *FULL_SIZE))])
def test_from_recipe_to_signatures(name, tmp_path):
    version = train_toy(name, {**TOY, **FULL_SIZE}[name], tmp_path)
    facts = json.loads((version / "metrics.json").read_text())
    recipe = RECIPES[name]
    assert version.parent.name == name
    assert facts["recipe"]["model"] == recipe.model
    with Session(version) as session:
        assert {"serving_default", "encoded"} <= set(session.signatures)
        assert set(facts["heads"]) <= set(session.signatures["serving_default"].outputs)
        assert "output_0" not in session.signatures["serving_default"].outputs
    for picture in version.glob("*.png"):
        with Image.open(picture) as opened:
            assert opened.width > 300


@pytest.mark.usefixtures("toy_source")
def test_each_task_asks_its_own_question(tmp_path):
    def loaded(task):
        return loading.load(dataclasses.replace(RECIPES["fashion"], task=task), None, tmp_path)

    views = loaded("views").test.inputs
    assert {name: image.shape for name, image in views.items()} == {
        "left": (20, 28, 14, 1), "right": (20, 28, 14, 1)}
    sums = loaded("sums").test.targets
    np.testing.assert_array_equal(sums["sum"], sums["left_digit"] + sums["right_digit"])
    covered = loaded("coverage")
    np.testing.assert_allclose(covered.test.targets["coverage"],
                               (covered.test.inputs["image"] > 0).mean(axis=(1, 2, 3)))
    masks = loaded("masks").test
    assert masks.inputs["image"].shape == (20, 32, 32, 1)
    shares = masks.targets["mask"].mean(axis=(1, 2)) * 32 * 32
    np.testing.assert_allclose(shares, covered.test.targets["coverage"] * 28 * 28, rtol=1e-5)


def test_every_model_has_a_recipe_and_every_recipe_a_test():
    assert {recipe.model for recipe in RECIPES.values()} == set(models.MODELS)
    assert set(RECIPES) == {*TOY, *FULL_SIZE, "digits", "cnn_functional"}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_a_recipes_own_fields_are_sizes_of_its_model(recipe):
    assert set(recipe.size) <= set(models.sizes(recipe.model))


def test_another_model_is_built_at_its_own_size():
    assert dataclasses.replace(RECIPES["digits"], model="mlp").size == {}

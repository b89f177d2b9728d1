import dataclasses

import pytest

import models
import training
from models.preprocessing import preprocessing
from sluice.wire.versions import model_name_fault
from training.errors import BadSetting, UnknownName
from training.recipes import RECIPES, Recipe
from training.recipes.bounds import BOUNDS, UNKNOWN
from training.settings import configure, settings_of


def test_text_is_taken_as_the_fields_type():
    recipe = configure("digits", {"epochs": "3", "learning_rate": "1e-2", "flip": "yes"})
    assert (recipe.epochs, recipe.learning_rate, recipe.flip) == (3, 0.01, True)
    assert RECIPES["digits"].epochs != 3


def test_an_unknown_recipe_is_answered_with_the_nearest_first():
    with pytest.raises(UnknownName, match=r"no recipe 'digit'; known, nearest first: digits, "):
        configure("digit", {})


def test_an_unknown_key_is_answered_with_the_nearest_first():
    with pytest.raises(UnknownName, match=r"'epoch'; known, nearest first: epochs, "):
        configure("digits", {"epoch": "3"})


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": "three"},
        {"epochs": "1.5"},
        {"flip": "perhaps"},
        {"epochs": "0"},
        {"learning_rate": "-1"},
        {"learning_rate": "nan"},
        {"learning_rate": "1e9"},
        {"learning_rate": float("inf")},
        {"batch_size": 0},
        {"batch_size": 2.5},
        {"batch_size": True},
        {"channels": "4"},
        {"patience": "-1"},
        {"image_size": "-2"},
        {"limit": "-1"},
        {"seed": "-1"},
        {"beta_1": "1"},
        {"shift": "2"},
        {"flip": 1},
        {"filters": "0"},
        {"units": None},
    ],
)
def test_a_value_out_of_type_or_range_is_refused(settings):
    with pytest.raises(BadSetting, match=next(iter(settings))):
        configure("digits" if "filters" not in settings else "cnn_functional", settings)


def test_each_of_several_numbers_is_held_against_the_bounds():
    with pytest.raises(BadSetting, match="units must be 1 to 65,536, not 64,0"):
        configure("mlp", {"units": "64,0"})
    assert configure("mlp", {"units": [64, 32]}).units == (64, 32)


def test_a_recipe_of_ones_own_is_checked_too():
    with pytest.raises(BadSetting, match="epochs must be 1 to 100,000, not -3"):
        configure(dataclasses.replace(RECIPES["digits"], epochs=-3), {})


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_every_setting_says_what_it_is_and_may_be(recipe):
    for setting in settings_of(recipe):
        assert setting.bounds is not UNKNOWN, setting.name
        assert setting.meaning and setting.allowed
        # What is shown can be typed, and is within the bounds.
        assert configure(recipe, {setting.name: setting.shown_default}) == recipe


def test_choices_are_what_the_models_know():
    for preprocess in BOUNDS["preprocess"].choices:
        preprocessing(preprocess, channels=3)
    for stem in BOUNDS["stem"].choices:
        models.build("resnet50", (32, 32, 3), 2, stem=stem, width=4, depths=(1,))


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "a/b",
        "a\\b",
        "..",
        ".hidden",
        "",
        "a:predict",
        " pets",
        "a\n",
        "\udcff",
        "x" * 256,
    ],
)
def test_a_name_is_one_directory_and_one_part_of_an_address(name, tmp_path):
    with pytest.raises(BadSetting, match="a model cannot be named"):
        training.train("digits", model_repository=tmp_path / "repository", name=name)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["pets", "Haustiere 2", "größe", "7", "a..b"])
def test_a_name_may_be_in_any_script(name):
    assert model_name_fault(name) == ""


def test_an_image_is_not_moved_away_from_its_mask():
    with pytest.raises(BadSetting, match="no flip and no shift"):
        configure("unet", {"flip": "true"})


def test_an_unknown_precision_is_answered_with_the_nearest_first():
    with pytest.raises(UnknownName, match="nearest first: mixed_float16"):
        configure("digits", {"precision": "mixed_float17"})


@pytest.mark.parametrize("key", ["name", "summary", "source"])
def test_what_makes_a_recipe_that_recipe_cannot_be_set(key):
    with pytest.raises(UnknownName):
        configure("digits", {key: "other"})


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_recipes_say_what_they_are(recipe):
    assert isinstance(recipe, Recipe)
    assert recipe.summary and RECIPES[recipe.name] is recipe

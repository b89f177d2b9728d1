import pytest

from training.errors import BadSetting, UnknownName
from training.recipes import RECIPES, Recipe
from training.settings import configure


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
        {"batch_size": 0},
        {"channels": "4"},
    ],
)
def test_a_value_out_of_type_or_range_is_refused(settings):
    with pytest.raises(BadSetting, match=next(iter(settings))):
        configure("digits", settings)


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

"""Recipe and data -> Keras model."""

import keras

import models
from training.data.dataset import Dataset
from training.errors import BadSetting, UnknownName
from training.recipes import Recipe

_FLOAT32 = keras.DTypePolicy("float32")


def build(recipe: Recipe, dataset: Dataset, policy: keras.DTypePolicy = _FLOAT32) -> keras.Model:
    """The recipe's model for the data's shape and classes, its weights drawn by the recipe's seed.

    policy: of its layers; weights are float32 in any.
    Raises UnknownName for the model, BadSetting for a size that it cannot be built at.

    >>> from pathlib import Path
    >>> from training.data.load import load
    >>> from training.recipes import RECIPES
    >>> build(RECIPES["digits"], load(RECIPES["digits"], None, Path())).output_shape
    (None, 10)
    """
    check_model(recipe)
    keras.utils.set_random_seed(recipe.seed)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        return models.build(
            recipe.model, input_shape=dataset.input_shape, classes=dataset.classes, **recipe.size
        )
    except ValueError as error:  # ours for a shape, Keras's for a size that comes out negative
        raise BadSetting(
            f"{recipe.model} cannot be built for images of {dataset.input_shape} "
            f"and {dataset.classes} classes with {recipe.size}: {error}"
        ) from error
    finally:
        keras.config.set_dtype_policy(before)


def check_model(recipe: Recipe) -> None:
    """Raises UnknownName for a model that does not exist.

    >>> from training.recipes import RECIPES
    >>> check_model(RECIPES["digits"])
    """
    if recipe.model not in models.MODELS:
        raise UnknownName("there is no model", recipe.model, models.MODELS)

"""The recipes by name. Nothing here imports Keras."""
from training.recipes.base import Recipe
from training.recipes.digits import Digits
from training.recipes.fashion import Fashion

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (Digits(), Fashion())}

__all__ = ["RECIPES", "Recipe"]

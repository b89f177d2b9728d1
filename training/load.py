"""Recipe -> Dataset."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from training.dataset import Dataset
from training.recipes import Recipe
from training.sources import digits, fashion

SOURCES: dict[str, Callable[[Recipe, Path | None], Dataset]] = {
    "digits": digits.load, "fashion": fashion.load}


def load(recipe: Recipe, data: Path | None = None) -> Dataset:
    """The recipe's images, or those at `data`. Raises DataError."""
    return SOURCES[recipe.source](recipe, data)

"""Inception v3 at its published size."""

from dataclasses import dataclass

from training.recipes.base import Recipe


@dataclass(frozen=True)
class InceptionV3(Recipe):
    name: str = "inception_v3"
    summary: str = "Inception v3 at its published width, for a GPU"
    model: str = "inception_v3"
    image_size: int = 96  # it needs 75
    epochs: int = 20
    flip: bool = True
    shift: float = 0.07
    width: float = 1.0

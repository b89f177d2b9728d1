"""Garments drawn by a generator, judged by a discriminator."""

from dataclasses import dataclass

from training.recipes.base import Recipe


@dataclass(frozen=True)
class GarmentGAN(Recipe):
    name: str = "gan"
    summary: str = "Garments drawn on demand, and a judge that says what is real and of which class"
    model: str = "gan"
    epochs: int = 8
    learning_rate: float = 2e-4
    beta_1: float = 0.5
    width: int = 32

"""A class for each pixel."""

from dataclasses import dataclass

from training.recipes.base import Recipe


@dataclass(frozen=True)
class UNet(Recipe):
    name: str = "unet"
    summary: str = "Which pixels of a picture belong to the garment that lies on it"
    model: str = "unet"
    task: str = "masks"
    limit: int = 8_000
    epochs: int = 15
    learning_rate: float = 3e-3
    width: int = 8
    depth: int = 3
    dropout: float = 0.1

from __future__ import annotations

from dataclasses import dataclass

from training.recipes.base import Recipe


@dataclass(frozen=True)
class UNet(Recipe):
    name: str = "unet"
    summary: str = "Which pixels of a picture belong to the garment that lies on it"
    model: str = "unet"
    task: str = "masks"
    limit: int = 8_000
    epochs: int = 4
    batch_size: int = 32
    width: int = 16
    depth: int = 3
    dropout: float = 0.1

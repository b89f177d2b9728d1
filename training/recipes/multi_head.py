"""One image, two answers."""

from dataclasses import dataclass

from training.recipes.base import Recipe


@dataclass(frozen=True)
class MultiHead(Recipe):
    name: str = "multi_head"
    summary: str = "A garment's class, and how much of the image it covers"
    model: str = "multi_head"
    task: str = "coverage"
    epochs: int = 6
    batch_size: int = 128
    flip: bool = True
    width: int = 16

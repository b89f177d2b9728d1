"""One object from two sides."""

from dataclasses import dataclass

from training.recipes.base import Recipe


@dataclass(frozen=True)
class TwoView(Recipe):
    name: str = "two_view"
    summary: str = "Garments seen in two halves, as if by two cameras"
    model: str = "two_view"
    task: str = "views"
    epochs: int = 6
    batch_size: int = 128
    width: int = 16

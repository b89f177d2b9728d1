"""What every recipe says, as data."""
from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """One model trained on one source of images.

    A field that a subclass adds to these is a size argument of its model:
    `models.build(recipe.model, ..., **recipe.size)`.
    """

    name: str  # also the published model's name
    summary: str
    source: str  # a key of training.load.SOURCES
    model: str  # a key of models.MODELS
    epochs: int = 10
    batch_size: int = 64  # over all devices and machines together
    learning_rate: float = 1e-3  # its peak: it rises for 5% of the steps, then falls on a cosine
    weight_decay: float = 0.0
    shift: float = 0.0  # augmentation: up to this fraction of the height and width, either way
    flip: bool = False  # augmentation: left and right
    seed: int = 0

    @property
    def size(self) -> dict[str, object]:
        own = {field.name for field in dataclasses.fields(Recipe)}
        return {field.name: getattr(self, field.name)
                for field in dataclasses.fields(self) if field.name not in own}

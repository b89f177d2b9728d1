from __future__ import annotations

from dataclasses import dataclass

from training.recipes.base import Recipe


@dataclass(frozen=True)
class InceptionV3(Recipe):
    name: str = "inception_v3"
    summary: str = "Garments, enlarged, by a narrow Inception v3"
    model: str = "inception_v3"
    image_size: int = 75
    limit: int = 20_000
    epochs: int = 8
    flip: bool = True
    width: float = 0.25

from __future__ import annotations

from dataclasses import dataclass

from training.recipes.base import Recipe


@dataclass(frozen=True)
class Fashion(Recipe):
    name: str = "fashion"
    summary: str = "Fashion-MNIST's 70,000 garments, 28x28, in ten classes"
    source: str = "fashion"
    model: str = "cnn_functional"
    epochs: int = 8
    batch_size: int = 64
    learning_rate: float = 1e-3
    flip: bool = True

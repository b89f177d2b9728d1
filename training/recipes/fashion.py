"""Fashion-MNIST by a small network with batch normalisation."""

from dataclasses import dataclass

from training.recipes.base import Recipe


@dataclass(frozen=True)
class Fashion(Recipe):
    name: str = "fashion"
    summary: str = "Fashion-MNIST's 70,000 garments, 28x28, in ten classes"
    model: str = "cnn_functional"
    epochs: int = 10
    flip: bool = True
    shift: float = 0.04
    units: int = 128

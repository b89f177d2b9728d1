"""scikit-learn's digits: what `make serve` trains first."""

from dataclasses import dataclass

from training.recipes.base import Recipe


@dataclass(frozen=True)
class Digits(Recipe):
    name: str = "digits"
    summary: str = "scikit-learn's 1,797 handwritten digits, 8x8: seconds, and always there"
    model: str = "cnn_functional"
    source: str = "digits"
    epochs: int = 60
    batch_size: int = 32
    learning_rate: float = 2e-3
    shift: float = 0.05
    units: int = 128

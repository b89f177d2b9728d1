"""Two digits in, both and their sum out."""

from dataclasses import dataclass

from training.recipes.base import Recipe


@dataclass(frozen=True)
class DigitSum(Recipe):
    name: str = "digit_sum"
    summary: str = "Two handwritten digits, and their sum"
    model: str = "digit_sum"
    source: str = "digits"
    task: str = "sums"
    epochs: int = 6
    batch_size: int = 128
    width: int = 32

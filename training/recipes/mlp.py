"""Dense layers alone."""

from dataclasses import dataclass

from training.recipes.base import Recipe


@dataclass(frozen=True)
class MLP(Recipe):
    name: str = "mlp"
    summary: str = "Garments by a plain stack of dense layers"
    model: str = "mlp"
    epochs: int = 8
    batch_size: int = 128
    flip: bool = True
    units: tuple[int, ...] = (512, 256)

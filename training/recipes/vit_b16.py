from __future__ import annotations

from dataclasses import dataclass

from training.recipes.base import Recipe


@dataclass(frozen=True)
class ViT(Recipe):
    name: str = "vit_b16"
    summary: str = "Garments by a small Vision Transformer"
    model: str = "vit_b16"
    epochs: int = 15
    batch_size: int = 128
    weight_decay: float = 1e-4
    flip: bool = True
    shift: float = 0.04
    patch: int = 4
    width: int = 64
    depth: int = 4
    heads: int = 4
    mlp_width: int = 128

"""Vision Transformers: a small one for two cores, and ViT-B/16."""

from dataclasses import dataclass

from training.recipes.base import Recipe


@dataclass(frozen=True)
class ViTSmall(Recipe):
    name: str = "vit_small"
    summary: str = "A small Vision Transformer, for garments on two cores"
    model: str = "vit_b16"
    epochs: int = 24
    batch_size: int = 128
    weight_decay: float = 2e-2
    flip: bool = True
    patch: int = 7
    width: int = 96
    depth: int = 4
    heads: int = 4
    mlp_width: int = 192
    dropout: float = 0.0  # its random numbers take a fifth of a step on two cores


@dataclass(frozen=True)
class ViTB16(Recipe):
    name: str = "vit_b16"
    summary: str = "ViT-B/16 at its published width and depth, for a GPU"
    model: str = "vit_b16"
    image_size: int = 96
    epochs: int = 30
    batch_size: int = 128
    learning_rate: float = 3e-4
    weight_decay: float = 1e-2
    flip: bool = True
    shift: float = 0.07
    depth: int = 12

from __future__ import annotations

from dataclasses import dataclass

from training.recipes.base import Recipe


@dataclass(frozen=True)
class VGG16(Recipe):
    name: str = "vgg16"
    summary: str = "Garments by a narrow VGG-16"
    model: str = "vgg16"
    image_size: int = 32
    epochs: int = 10
    batch_size: int = 128
    flip: bool = True
    width: int = 16
    units: int = 128
    preprocess: str = "unit"


@dataclass(frozen=True)
class VGG19(VGG16):
    name: str = "vgg19"
    summary: str = "Garments by a narrow VGG-19"
    model: str = "vgg19"

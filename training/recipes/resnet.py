from __future__ import annotations

from dataclasses import dataclass

from training.recipes.base import Recipe


@dataclass(frozen=True)
class ResNet50(Recipe):
    name: str = "resnet50"
    summary: str = "Garments by a narrow ResNet-50"
    model: str = "resnet50"
    epochs: int = 12
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 1e-3
    flip: bool = True
    shift: float = 0.07
    width: int = 16
    stem: str = "3x3"
    preprocess: str = "unit"


@dataclass(frozen=True)
class ResNet101(ResNet50):
    name: str = "resnet101"
    summary: str = "Garments by a narrow ResNet-101"
    model: str = "resnet101"


@dataclass(frozen=True)
class ResNet152(ResNet50):
    name: str = "resnet152"
    summary: str = "Garments by a narrow ResNet-152"
    model: str = "resnet152"

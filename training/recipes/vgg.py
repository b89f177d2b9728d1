"""The two VGGs at their published width."""

from dataclasses import dataclass

from training.recipes.base import Recipe


@dataclass(frozen=True)
class VGG16(Recipe):
    name: str = "vgg16"
    summary: str = "VGG-16 at its published width, with smaller dense layers, for a GPU"
    model: str = "vgg16"
    image_size: int = 64
    epochs: int = 20
    learning_rate: float = 2e-4
    flip: bool = True
    shift: float = 0.07
    width: int = 64
    units: int = 512


@dataclass(frozen=True)
class VGG19(VGG16):
    name: str = "vgg19"
    summary: str = "VGG-19 at its published width, with smaller dense layers, for a GPU"
    model: str = "vgg19"

"""ResNets: a small one for two cores, and the published depths."""

from dataclasses import dataclass

from training.recipes.base import Recipe


@dataclass(frozen=True)
class ResNetSmall(Recipe):
    name: str = "resnet_small"
    summary: str = "ResNet's bottleneck blocks, few and narrow, for garments on two cores"
    model: str = "resnet50"
    epochs: int = 15
    batch_size: int = 128
    learning_rate: float = 3e-3
    weight_decay: float = 2e-2
    flip: bool = True
    shift: float = 0.04
    width: int = 16
    depths: tuple[int, ...] = (2, 2, 2)
    stem: str = "3x3_pool"
    preprocess: str = "unit"


@dataclass(frozen=True)
class ResNet50(Recipe):
    name: str = "resnet50"
    summary: str = "ResNet-50 at its published width, for a GPU"
    model: str = "resnet50"
    image_size: int = 64
    epochs: int = 20
    batch_size: int = 128
    weight_decay: float = 1e-3
    flip: bool = True
    shift: float = 0.07
    width: int = 64
    depths: tuple[int, ...] = (3, 4, 6, 3)


@dataclass(frozen=True)
class ResNet101(ResNet50):
    name: str = "resnet101"
    summary: str = "ResNet-101 at its published width, for a GPU"
    model: str = "resnet101"
    depths: tuple[int, ...] = (3, 4, 23, 3)


@dataclass(frozen=True)
class ResNet152(ResNet50):
    name: str = "resnet152"
    summary: str = "ResNet-152 at its published width, for a GPU"
    model: str = "resnet152"
    depths: tuple[int, ...] = (3, 8, 36, 3)

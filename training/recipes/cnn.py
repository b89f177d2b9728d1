"""Small convolutional networks, written as a graph and as a stack."""

from dataclasses import dataclass

from training.recipes.base import Recipe


@dataclass(frozen=True)
class CNN(Recipe):
    name: str = "cnn_functional"
    summary: str = "A small convolutional network, for garments or a folder of your own"
    model: str = "cnn_functional"
    epochs: int = 10
    flip: bool = True
    shift: float = 0.04
    filters: int = 32
    units: int = 64


@dataclass(frozen=True)
class CNNSequential(CNN):
    name: str = "cnn_sequential"
    summary: str = "The same network as a stack"
    model: str = "cnn_sequential"

"""What is trained on: arrays by the names of the model's inputs and heads."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class Head:
    """One output of a model.

    labels: the names of its classes, in the order of the output's last axis.
    per_pixel: True where it gives every pixel a class, [N, H, W, classes].
    """

    labels: tuple[str, ...]
    per_pixel: bool = False
    loss_weight: float = 1.0


@dataclass(frozen=True)
class Split:
    """inputs: uint8 [N, H, W, C] each; targets: class numbers, int64 [N] or [N, H, W] each."""

    inputs: Arrays
    targets: Arrays

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def take(self, rows: npt.NDArray[np.int64] | slice) -> Split:
        return Split({name: array[rows] for name, array in self.inputs.items()},
                     {name: array[rows] for name, array in self.targets.items()})


@dataclass(frozen=True)
class Dataset:
    """origin says in one line where the images came from.

    Training sees `train` alone; `validation` steers it (early stopping); `test` is looked at
    once, by evaluation.
    """

    train: Split
    validation: Split
    test: Split
    heads: Mapping[str, Head]
    origin: str

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """[H, W, C] of the first input."""
        height, width, channels = next(iter(self.train.inputs.values())).shape[1:]
        return height, width, channels

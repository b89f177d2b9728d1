"""What is trained on: arrays by the names of the model's inputs and heads."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from sluice.wire.tensors import Array
from training.data.heads import Head

Arrays = Mapping[str, Array]


def spaced(count: int, most: int) -> Array:
    """The numbers of `most` of `count` rows, from all over: a folder's lie by class.

    >>> spaced(9, 3).tolist(), spaced(2, 3).tolist()
    ([0, 4, 8], [0, 1])
    """
    return np.linspace(0, count - 1, min(count, most)).astype(np.int64)


@dataclass(frozen=True)
class Split:
    """inputs: uint8 [N, H, W, C] each; targets: as their heads take them, [N, ...] each."""

    inputs: Arrays
    targets: Arrays

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def take(self, rows: Array | slice) -> "Split":
        """Those rows of every input and target.

        >>> import numpy as np
        >>> split = Split({"image": np.zeros((5, 8, 8, 1), np.uint8)}, {"label": np.arange(5)})
        >>> split.take(slice(2, None)).targets["label"].tolist()
        [2, 3, 4]
        """
        return Split(
            {name: array[rows] for name, array in self.inputs.items()},
            {name: array[rows] for name, array in self.targets.items()},
        )


@dataclass(frozen=True)
class Dataset:
    """origin says in one line where the images came from.

    Training sees `train` alone; `validation` steers it (early stopping); `test` is looked at
    once, by evaluation.

    >>> import numpy as np
    >>> from training.data.heads import Classes
    >>> split = Split({"image": np.zeros((5, 8, 6, 1), np.uint8)}, {"label": np.arange(5)})
    >>> dataset = Dataset(split, split, split, {"label": Classes(tuple("01234"))}, "nowhere")
    >>> dataset.input_shape, dataset.classes
    ((8, 6, 1), 5)
    """

    train: Split
    validation: Split
    test: Split
    heads: Mapping[str, Head]
    origin: str

    def changed(self, change: Callable[[Split], Split]) -> "Dataset":
        """With each of its three splits as `change` gives it."""
        return replace(
            self,
            train=change(self.train),
            validation=change(self.validation),
            test=change(self.test),
        )

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """[H, W, C] of the first input."""
        height, width, channels = next(iter(self.train.inputs.values())).shape[1:]
        return height, width, channels

    @property
    def classes(self) -> int:
        """What a model is built for: the fewest that a head names (a sum of digits has more)."""
        return min(len(head.labels) for head in self.heads.values() if head.labels)

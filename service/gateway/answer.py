"""What a model answered."""

import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sluice.wire.tensors import Array


class Answer(NamedTuple):
    """Outputs by name, and the version that gave them."""

    outputs: dict[str, Array]
    version: int

    @property
    def size(self) -> int:
        """What its arrays take, bytes, the strings in them included."""
        arrays = self.outputs.values()
        strings = (each for array in arrays if array.dtype.hasobject for each in array.flat)
        return sum(array.nbytes for array in arrays) + sum(map(sys.getsizeof, strings))

    def to_keep(self) -> "Answer":
        """The same in arrays of its own, read-only: those of a joined call lie in what answers all
        its parts, and would keep it."""
        return Answer({name: _copy(array) for name, array in self.outputs.items()}, self.version)

    def shared_out(self, rows: Sequence[int]) -> "list[Answer] | None":
        """Each part's rows, of parts of so many; None where the outputs are not one row for each
        of theirs."""
        if len(rows) == 1:
            return [self]
        if any(array.shape[:1] != (sum(rows),) for array in self.outputs.values()):
            return None
        answers, start = [], 0
        for count in rows:
            end = start + count
            outputs = {name: array[start:end] for name, array in self.outputs.items()}
            answers.append(Answer(outputs, self.version))
            start = end
        return answers


def _copy(array: Array) -> Array:
    copied = np.array(array)
    copied.flags.writeable = False
    return copied

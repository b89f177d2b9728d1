"""What arrays weigh."""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from sluice.wire.tensors import Array

LEAST = 512  # bytes that are copied in the time that an array takes of whatever size


def bytes_of(arrays: Mapping[str, Array]) -> int:
    """Their elements', of strings the texts'.

    >>> bytes_of({"x": np.zeros((2, 3), np.float32), "file": np.array([b"text"], object)})
    28
    """
    size = 0
    for array in arrays.values():
        size += sum(map(len, array.flat)) if array.dtype.hasobject else array.nbytes
    return size


def kept_by(arrays: Mapping[str, Array]) -> int:
    """What they keep of memory, bytes: a tensor of a message all that the message is.

    >>> kept_by({"x": np.zeros(1000, np.uint8)[:1]})
    1000
    """
    sizes: dict[int, int] = {}
    for array in arrays.values():
        root, whole = _lies_in(array)
        sizes[root] = max(sizes.get(root, 0), whole, array.nbytes)
    strings = (each for array in arrays.values() if array.dtype.hasobject for each in array.flat)
    return sum(sizes.values()) + sum(map(sys.getsizeof, strings))


def keep_little(arrays: Mapping[str, Array], most: int) -> bool:
    """Whether they keep at most so many bytes, which is sooner told than how many. Of strings it is
    not told; that there are many arrays counts as well.

    >>> keep_little({"x": np.zeros(1000, np.uint8)[:1]}, 1000)
    True
    """
    for array in arrays.values():
        if array.dtype.hasobject:
            return False
        most -= max(array.nbytes, _lies_in(array)[1], LEAST)
        if most < 0:
            return False
    return True


def _lies_in(array: Array) -> tuple[int, int]:
    """What keeps an array's elements: its id, and its bytes."""
    root: Any = array
    while isinstance(root, np.ndarray) and root.base is not None:
        root = root.base
    if isinstance(root, memoryview):
        root = root.obj
    return id(root), root.nbytes if isinstance(root, np.ndarray) else sys.getsizeof(root)

"""What arrays weigh."""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from sluice.wire.tensors import Array


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
        root: Any = array
        while isinstance(root, np.ndarray) and root.base is not None:
            root = root.base
        if isinstance(root, memoryview):
            root = root.obj
        whole = root.nbytes if isinstance(root, np.ndarray) else sys.getsizeof(root)
        sizes[id(root)] = max(sizes.get(id(root), 0), whole, array.nbytes)
    strings = (each for array in arrays.values() if array.dtype.hasobject for each in array.flat)
    return sum(sizes.values()) + sum(map(sys.getsizeof, strings))

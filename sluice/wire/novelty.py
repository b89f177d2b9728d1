"""What answers say of how unlike the training images their rows are (docs/novelty.md)."""

from collections.abc import Iterable

import numpy as np

from sluice.wire.tensors import Array

MOST = 1000.0  # a row that is no number, or beyond this, must not drown the others in the sum


def readings(answered: Iterable[Array | None]) -> list[float]:
    """One number a row, of outputs called `novelty`: float [N] each. Anything else that a model
    calls so is passed over.

    >>> readings([np.float32([0.5, np.nan]), None, np.array([b"new"], object)])
    [0.5, 1000.0]
    """
    found = [
        np.nan_to_num(each, nan=MOST, posinf=MOST).clip(0, MOST)
        for each in answered
        if each is not None and each.ndim == 1 and each.dtype.kind == "f"
    ]
    return [value for each in found for value in each.tolist()]

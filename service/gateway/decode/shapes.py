"""What a shape may be that a client declares, before anything is made of it."""

import math
from collections.abc import Sequence

from service.gateway.errors import shown
from sluice.wire.tensors import MAX_RANK

MAX_ELEMENTS = 1 << 40  # more than any body can hold, and far from overflow in numpy
# Rows without an element take no bytes here, and each takes a row of the model's answer.
MAX_EMPTY = 1 << 20
MAX_STRINGS = 1 << 20  # in one tensor; a string of one byte is an object of some 50


def shape_fault(shape: object) -> str | None:
    """What is wrong with a shape, in a few words; None for one that an array can have."""
    if not isinstance(shape, Sequence) or not all(type(size) is int for size in shape):
        return "no list of whole numbers"
    if len(shape) > MAX_RANK:
        return f"{len(shape)} axes, where {MAX_RANK} is the most"
    sizes = shown(str(list(shape)))
    if any(size < 0 for size in shape):
        return f"{sizes}, with a size below 0"
    elements = math.prod(size for size in shape if size)
    if elements > (MAX_EMPTY if 0 in shape else MAX_ELEMENTS):
        return f"{sizes}, which is too large" + (" for no elements" if 0 in shape else "")
    return None

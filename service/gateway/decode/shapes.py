"""What a shape may be that a client declares, before anything is made of it."""

import math

from service.gateway.errors import shown
from sluice.wire.tensors import MAX_RANK

MAX_ELEMENTS = 1 << 40  # more than any body can hold, and far from overflow in numpy
# Rows without an element take no bytes here, and each takes a row of the model's answer.
MAX_EMPTY = 1 << 20
MAX_STRINGS = 1 << 20  # in one tensor; a string of one byte is an object of some 50


def rank_fault(rank: int) -> str | None:
    """What is wrong with a shape of so many axes; None where an array can have them.

    >>> rank_fault(65)
    '65 axes, where 64 is the most'
    """
    return f"{rank} axes, where {MAX_RANK} is the most" if rank > MAX_RANK else None


def shape_fault(shape: object) -> str | None:
    """What is wrong with a shape, in a few words; None for one that an array can have."""
    if not isinstance(shape, list | tuple):
        return "no list of whole numbers"
    if fault := rank_fault(len(shape)):
        return fault
    if not all(type(size) is int for size in shape):
        return "no list of whole numbers"
    if min(shape, default=0) < 0:
        return f"{shown(str(list(shape)))}, with a size below 0"
    if 0 in shape:
        if math.prod(size for size in shape if size) > MAX_EMPTY:
            return f"{shown(str(list(shape)))}, which is too large for no elements"
    elif math.prod(shape) > MAX_ELEMENTS:
        return f"{shown(str(list(shape)))}, which is too large"
    return None

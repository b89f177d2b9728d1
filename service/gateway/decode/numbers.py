"""JSON numbers to an array without a Python object for each of them.

simdjson flattens nested lists, so `[[1,2],[3]]` would pass for three numbers: the shape is proved
beside it, by the brackets and commas that are left of the text when the numbers are taken away.
Whatever is not regular is left to `values`, which is slower and says what is wrong.
"""

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import simdjson

from sluice.wire.tensors import Array

SIGNATURE = "signature_name"
_NUMBER_CHARACTERS = b"0123456789.eE+- \t\r\n"
_local = threading.local()  # a parser serves one thread at a time


class Numbers(NamedTuple):
    """A JSON object that holds one regular array, and at most a signature's name beside it."""

    key: str
    signature_name: str | None
    array: Array


def regular_numbers(
    body: bytes, dtype_for: Callable[[str | None], np.dtype | None]
) -> Numbers | None:
    """What `body` holds, or None where this way cannot be sure of it.

    `dtype_for` is asked with the signature's name, and answers the real or integer dtype to read,
    or None where there is no single numeric input.
    """
    parser = getattr(_local, "parser", None) or simdjson.Parser()
    _local.parser = None  # after an error here, a document that is still alive keeps its parser
    try:
        document = parser.parse(body)
        numbers = _numbers_in(document, body, dtype_for)
    except (ValueError, TypeError, RuntimeError):  # simdjson's own for a huge integer, great depth
        return None
    del document
    _local.parser = parser
    return numbers


def _numbers_in(
    document: Any, body: bytes, dtype_for: Callable[[str | None], np.dtype | None]
) -> Numbers | None:
    if not isinstance(document, simdjson.Object):
        return None
    keys = [key for key in document if key != SIGNATURE]
    name = document.get(SIGNATURE)
    if len(keys) != 1 or not isinstance(name, str | None):
        return None
    dtype, lists = dtype_for(name), document[keys[0]]
    if dtype is None or not isinstance(lists, simdjson.Array):
        return None
    shape = _shape_of(lists)
    if not shape or _skeleton_of(body) != _skeleton(shape):
        return None
    elements = _elements(lists, dtype, shape)
    return None if elements is None else Numbers(keys[0], name, elements)


def _elements(numbers: Any, dtype: np.dtype, shape: tuple[int, ...]) -> Array | None:
    code, wide = {"i": ("i", np.int64), "u": ("u", np.uint64)}.get(dtype.kind, ("d", np.float64))
    flat: Array = np.frombuffer(numbers.as_buffer(of_type=code), wide)
    if dtype.kind in "iu" and not _within(flat, dtype):
        return None
    with np.errstate(over="ignore"):  # 1e39 is Infinity as float32 (exchange "1e39 for float32")
        return flat.astype(dtype).reshape(shape)


def _within(flat: Array, dtype: np.dtype) -> bool:
    bounds = np.iinfo(dtype)
    return bool(flat.min() >= bounds.min and flat.max() <= bounds.max)


def _shape_of(numbers: Any) -> tuple[int, ...] | None:
    """The shape, if the lists are regular: their lengths along the first elements."""
    shape: list[int] = []
    while isinstance(numbers, simdjson.Array):
        if not len(numbers):
            return None
        shape.append(len(numbers))
        numbers = numbers[0]
    return tuple(shape)


def _skeleton_of(body: bytes) -> bytes:
    """From the first bracket to the last, less the numbers.

    There is one list in the body; a bracket inside the signature's name would leave quotes here.
    """
    bare = body.translate(None, _NUMBER_CHARACTERS)
    return bare[bare.index(b"[") : bare.rindex(b"]") + 1]


def _skeleton(shape: tuple[int, ...]) -> bytes:
    """`[[,],[,],[,]]` for (3, 2)."""
    inner = b""
    for size in reversed(shape):
        inner = b"[" + b",".join([inner] * size) + b"]"
    return inner

"""JSON's numbers to arrays by simdjson, without a Python object for each of them.

Its `as_buffer` takes nothing but numbers, and flattens nested lists: what their shape is, and
whether they have one, is for the caller to prove.
"""

import threading
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import numpy as np
import simdjson

from sluice.wire.tensors import Array

Read = TypeVar("Read")

# The widest dtype of each kind, and simdjson's code for it.
_Wide = tuple[Literal["d", "i", "u"], np.dtype]
_WIDE: dict[str, _Wide] = {
    "i": ("i", np.dtype(np.int64)),
    "u": ("u", np.dtype(np.uint64)),
    "f": ("d", np.dtype(np.float64)),
}
KINDS = frozenset(_WIDE)  # of the dtypes that are read
# A parser serves one thread at a time, and keeps 1.5 (long floats) to 14 times (`0,0`) the largest
# body it has seen. To make one anew for a picture of 256 x 256 x 3, 4.1 MB, takes 6 ms more of 10.
_local = threading.local()
_KEPT_BODY_BYTES = 5 << 20


class NotRegular(Exception):
    """This way cannot be sure of what the body holds."""


def read_by_simdjson(body: bytes, read: Callable[[Any], Read]) -> Read | None:
    """What `read` makes of the document, or None where it or simdjson cannot be sure of it.

    Nothing that simdjson made may be in the answer.
    """
    parser = getattr(_local, "parser", None) or simdjson.Parser()
    _local.parser = None  # after an error here, a document that is still alive keeps its parser
    try:
        answer = read(parser.parse(body))
    except (NotRegular, ValueError, TypeError, RuntimeError, KeyError):
        # simdjson's own: a huge integer, another kind of value, great depth, and a key that holds
        # a NUL, which is listed and then not found.
        return None
    if len(body) <= _KEPT_BODY_BYTES:
        _local.parser = parser
    return answer


def flat_array(lists: Any, dtype: np.dtype) -> Array:
    """All numbers of a simdjson Array in order, in `dtype`. Raises NotRegular, and what simdjson
    raises for anything else than numbers of this kind."""
    flat = flat_wide(lists, dtype)
    with np.errstate(over="ignore"):  # 1e39 is Infinity as float32 (exchange "1e39 for float32")
        return flat.astype(dtype)


def flat_wide(lists: Any, dtype: np.dtype) -> Array:
    """The same as int64, uint64 or float64; those for an integer dtype fit it."""
    if not isinstance(lists, simdjson.Array):
        raise NotRegular
    code, wide = _WIDE[dtype.kind]
    flat: Array = np.frombuffer(lists.as_buffer(of_type=code), wide)
    if dtype.kind in "iu" and not _within(flat, dtype):
        raise NotRegular
    return flat


def _within(flat: Array, dtype: np.dtype) -> bool:
    bounds = np.iinfo(dtype)
    return bool(flat.min() >= bounds.min and flat.max() <= bounds.max)

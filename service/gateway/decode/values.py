"""Parsed JSON values to arrays of a declared dtype; the first bad element is named by its place.

JSON has one kind of number and no bytes, so the dtype comes from the signature. The rules are
TensorFlow Serving's: an integer input takes no `1.0`, a float input takes `1`, nothing takes null,
true or "1.0" for a number, and `{"b64": ...}` is bytes.
"""

from collections.abc import Callable
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pybase64

from service.gateway.errors import InvalidInput
from service.gateway.signature import TensorSpec, dtype_name
from sluice.wire.tensors import MAX_RANK, Array

BASE64_KEY = "b64"


class Misfit(Exception):
    """A leaf that cannot be an element; `str()` says what was expected."""


class HugeNumber(str):
    """The text of a number that no double holds, such as 1e400; put in its place by the parser."""

    __slots__ = ()


class _Kind(NamedTuple):
    """How the leaves of one kind of dtype look in JSON, and how they become elements."""

    types: tuple[type, ...]
    expected: str
    convert: Callable[[Any, np.dtype], Any]


def array_of(value: object, spec: TensorSpec, pointer: str) -> Array:
    """The array of nested lists, in `spec`'s dtype and the shape that was sent.

    `pointer` is the JSON pointer of `value`, such as `/inputs/image`; InvalidInput names the place
    of the first element that does not fit, and of the first list whose length differs.
    """
    shape, leaves = _flatten(value, spec, pointer)
    kind = _kind_of(spec.dtype)
    if not set(map(type, leaves)) <= set(kind.types):
        index = next(i for i, leaf in enumerate(leaves) if type(leaf) not in kind.types)
        raise InvalidInput(
            spec.name, kind.expected, _describe(leaves[index]), at=_place(pointer, index, shape)
        )
    array = _together(leaves, spec.dtype)
    if array is None:
        array = _one_by_one(leaves, spec, kind, pointer, shape)
    return array.reshape(shape)


def _flatten(value: object, spec: TensorSpec, pointer: str) -> tuple[tuple[int, ...], list[Any]]:
    """The shape of nested lists and their leaves in order, level by level."""
    shape: tuple[int, ...] = ()
    level: list[Any] = [value]
    while level and type(level[0]) is list:
        if len(shape) == MAX_RANK:
            raise InvalidInput(spec.name, str(spec), f"lists nested more than {MAX_RANK} deep")
        size = len(level[0])
        if set(map(type, level)) != {list} or set(map(len, level)) != {size}:
            raise _ragged(level, size, spec, pointer, shape)
        level = list(chain.from_iterable(level))
        shape = (*shape, size)
    return shape, level


def _ragged(
    level: list[Any], size: int, spec: TensorSpec, pointer: str, shape: tuple[int, ...]
) -> InvalidInput:
    index, item = next(
        (i, item) for i, item in enumerate(level) if type(item) is not list or len(item) != size
    )
    got = str(len(item)) if type(item) is list else _describe(item)
    return InvalidInput(
        spec.name,
        f"a list of {size}, as its neighbours are",
        got,
        at=_place(pointer, index, shape),
        hint="ragged lists",
    )


def _together(leaves: list[Any], dtype: np.dtype) -> Array | None:
    """All leaves in one call, or None where one of them has to be looked at for its place."""
    if dtype.kind == "b":
        return np.array(leaves, dtype)
    if dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        fits = bounds.min <= min(leaves, default=0) and max(leaves, default=0) <= bounds.max
        return np.array(leaves, dtype) if fits else None
    if dtype.kind == "O":
        return None
    try:
        with np.errstate(over="ignore"):  # 1e39 is Infinity as float32 ("1e39 for float32")
            return np.array(leaves, np.float64).astype(dtype)
    except OverflowError:
        return None


def _one_by_one(
    leaves: list[Any], spec: TensorSpec, kind: _Kind, pointer: str, shape: tuple[int, ...]
) -> Array:
    elements = np.empty(len(leaves), object)
    for index, leaf in enumerate(leaves):
        try:
            elements[index] = kind.convert(leaf, spec.dtype)
        except Misfit as misfit:
            raise InvalidInput(
                spec.name, str(misfit), _describe(leaf), at=_place(pointer, index, shape)
            ) from None
    return elements.astype(spec.dtype)


def _as_it_is(leaf: Any, _dtype: np.dtype) -> Any:
    return leaf


def _integer(leaf: int, dtype: np.dtype) -> int:
    bounds = np.iinfo(dtype)
    if not bounds.min <= leaf <= bounds.max:
        raise Misfit(f"{dtype.name}, {bounds.min} to {bounds.max}")
    return leaf


def _float(leaf: float, dtype: np.dtype) -> float:
    try:
        return float(leaf)
    except OverflowError:
        raise Misfit(f"{dtype.name}, a number within double precision") from None


def _bytes(leaf: object, _dtype: np.dtype) -> bytes:
    if isinstance(leaf, str):
        return leaf.encode("utf-8", "surrogatepass")
    if not isinstance(leaf, dict) or set(leaf) != {BASE64_KEY} or type(leaf[BASE64_KEY]) is not str:
        raise Misfit('a string, or {"b64": "..."} alone in its object')
    return decode_base64(leaf[BASE64_KEY])


def decode_base64(text: str) -> bytes:
    """Standard base64; as TensorFlow Serving does, white space and missing padding are forgiven."""
    try:
        decoded: bytes = pybase64.b64decode(text, validate=True)
    except ValueError:
        decoded = _decode_untidy_base64("".join(text.split()).rstrip("="))
    return decoded


def _decode_untidy_base64(compact: str) -> bytes:
    try:
        decoded: bytes = pybase64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except ValueError:
        raise Misfit("base64 (A-Z a-z 0-9 + / and = at the end)") from None
    return decoded


def _kind_of(dtype: np.dtype) -> _Kind:
    if dtype.kind == "O":
        return _Kind((str, dict), 'a string or {"b64": "..."}', _bytes)
    if dtype.kind == "b":
        return _Kind((bool,), "true or false", _as_it_is)
    if dtype.kind in "iu":
        return _Kind((int,), f"{dtype.name}, a whole number written without a point", _integer)
    if dtype.kind == "c" or dtype.names:
        return _Kind((), f"another encoding: JSON cannot carry {dtype_name(dtype)}", _as_it_is)
    return _Kind((int, float), f"{dtype.name}, a number", _float)


def _describe(leaf: object) -> str:
    """What came, short enough for a message."""
    if isinstance(leaf, HugeNumber):
        return f"{_shorten(leaf)}, too big to be stored in a double"
    if leaf is None or isinstance(leaf, bool):
        return {None: "null", True: "true", False: "false"}[leaf]
    if isinstance(leaf, str):
        return f'the string "{_shorten(leaf)}"'
    if isinstance(leaf, list):
        return f"a list of {len(leaf)}"
    if isinstance(leaf, dict):
        return f"an object with the keys {', '.join(map(_shorten, leaf)) or 'none'}"
    if isinstance(leaf, int) and leaf.bit_length() > 256:
        return "an integer of more than 77 digits"
    return str(leaf)


def _shorten(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."


def _place(pointer: str, index: int, shape: tuple[int, ...]) -> str:
    """The JSON pointer of element `index`, row-major, of lists of `shape` found at `pointer`."""
    return "/".join([pointer, *(str(int(i)) for i in np.unravel_index(index, shape))])

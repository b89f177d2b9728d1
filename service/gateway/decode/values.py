"""Parsed JSON values to arrays of a declared dtype; the first bad element is named by its place.

JSON has one kind of number and no bytes, so the dtype comes from the signature. The rules are
TensorFlow Serving's: an integer input takes no `1.0`, a float input takes `1`, nothing takes null,
true or "1.0" for a number, and `{"b64": ...}` is bytes. numpy's files are held to the same rules:
what their dtype is, numpy chose more often than whoever sent them.
"""

import re
from collections.abc import Callable
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
import pybase64

from service.gateway.decode.json_documents import HugeNumber
from service.gateway.dtypes import JSON, NUMPY, bounds_of, is_integer, is_real, not_carried
from service.gateway.errors import InvalidInput, shown
from sluice.wire.signature import TensorSpec, dtype_name
from sluice.wire.tensors import MAX_RANK, Array

BASE64_KEY = "b64"
_SHOWN_KEYS = 5
_DATA_URL = re.compile(r"\s*data:[^,]{0,200};base64,")
_URL_ALPHABET = str.maketrans("-_", "+/")


class Misfit(Exception):
    """A leaf that cannot be an element; `str()` says what was expected."""


class _Kind(NamedTuple):
    """How the leaves of one kind of dtype look in JSON, and how they become elements."""

    types: tuple[type, ...]
    expected: str
    convert: Callable[[Any, np.dtype], Any]


class _Pointer(NamedTuple):
    """Where lists stand: from `/instances` on, for named rows at `/image` within each."""

    start: str
    within: str

    def to(self, index: int, shape: tuple[int, ...]) -> str:
        """The JSON pointer of element `index`, row-major, of lists of `shape`."""
        places = [f"/{int(place)}" for place in np.unravel_index(index, shape)]
        return "".join([self.start, *places[:1], self.within, *places[1:]])


def array_of(value: object, spec: TensorSpec, start: str, within: str = "") -> Array:
    """The array of nested lists, in `spec`'s dtype and the shape that was sent.

    `start` is the JSON pointer of `value`, such as `/inputs/image`; of `/instances/5/image` it is
    `/instances`, and `within` is `/image`. InvalidInput names the place of the first element that
    does not fit, and of the first list whose length differs.
    """
    pointer = _Pointer(start, within)
    shape, leaves = _flatten(value, spec, pointer)
    kind = _kind_of(spec.dtype)
    if not set(map(type, leaves)) <= set(kind.types):
        index = next(i for i, leaf in enumerate(leaves) if type(leaf) not in kind.types)
        raise InvalidInput(
            spec.name, kind.expected, describe(leaves[index]), at=pointer.to(index, shape)
        )
    array = _together(leaves, spec.dtype)
    if array is None:
        array = _one_by_one(leaves, spec, kind, pointer, shape)
    return array.reshape(shape)


def _flatten(
    value: object, spec: TensorSpec, pointer: _Pointer
) -> tuple[tuple[int, ...], list[Any]]:
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
    level: list[Any], size: int, spec: TensorSpec, pointer: _Pointer, shape: tuple[int, ...]
) -> InvalidInput:
    index, item = next(
        (i, item) for i, item in enumerate(level) if type(item) is not list or len(item) != size
    )
    return InvalidInput(
        spec.name,
        f"a list of {size}, as its neighbours are",
        describe(item),
        at=pointer.to(index, shape),
        hint="ragged lists",
    )


def _together(leaves: list[Any], dtype: np.dtype) -> Array | None:
    """All leaves in one call, or None where one of them has to be looked at for its place."""
    if dtype.kind == "b":
        return np.array(leaves, dtype)
    if is_integer(dtype):
        least, most = bounds_of(dtype)
        fits = least <= min(leaves, default=0) and max(leaves, default=0) <= most
        return np.array(leaves, dtype) if fits else None
    if dtype.kind == "O":
        return None
    try:
        array = np.array(leaves, np.float64)
    except OverflowError:
        return None
    narrow = _narrowed(array, dtype)
    return None if _has_lost_a_number(array, narrow) else narrow


def cast_as_json(array: Array, spec: TensorSpec) -> Array:
    """An array of numpy's in `spec`'s dtype or one that widens to it, by JSON's rules: whole
    numbers become any number within its bounds, real ones any real one. What is no number is left
    as it is.

    Raises InvalidInput, for a dtype that numpy's files cannot carry too.
    """
    if reason := not_carried(spec.dtype, NUMPY):
        raise InvalidInput(spec.name, f"another dialect: {reason}", f"{array.dtype.name} values")
    given = array.dtype
    if given.kind not in "iufc" or np.can_cast(given, spec.dtype, "safe"):
        return array  # what widens is widened by `validate`, if by then it has to be
    if is_integer(spec.dtype):
        return _whole(array, spec)
    if (is_real(spec.dtype) and given.kind != "c") or spec.dtype.kind == "c":
        narrow = _narrowed(array, spec.dtype)
        if _has_lost_a_number(array, narrow):
            raise InvalidInput(spec.name, f"{spec}, numbers that it holds", "larger ones")
        return narrow
    return array


def _whole(array: Array, spec: TensorSpec) -> Array:
    name = dtype_name(spec.dtype)
    if array.dtype.kind not in "iu":
        raise InvalidInput(
            spec.name, str(spec), f"{array.dtype.name} values", hint=f'numpy: .astype("{name}")'
        )
    least, most = bounds_of(spec.dtype)
    outside = (array < least) | (array > most)
    if outside.any():
        place = np.unravel_index(int(outside.argmax()), array.shape)
        at = f"[{','.join(map(str, map(int, place)))}]"
        raise InvalidInput(spec.name, f"{name}, {least} to {most}", str(array[place]), at)
    return array.astype(spec.dtype)


def _narrowed(array: Array, dtype: np.dtype) -> Array:
    with np.errstate(over="ignore"):  # 1e39 is Infinity as float32 (exchange "1e39 for float32")
        return array.astype(dtype)


def _has_lost_a_number(array: Array, narrow: Array) -> bool:
    """Whether a number became NaN, as those too large for float8_e4m3fn do, which has no
    Infinity."""
    return narrow.dtype.kind == "V" and bool((np.isnan(narrow) & ~np.isnan(array)).any())


def _one_by_one(
    leaves: list[Any], spec: TensorSpec, kind: _Kind, pointer: _Pointer, shape: tuple[int, ...]
) -> Array:
    elements = np.empty(len(leaves), object)
    for index, leaf in enumerate(leaves):
        try:
            elements[index] = kind.convert(leaf, spec.dtype)
        except Misfit as misfit:
            raise InvalidInput(
                spec.name, str(misfit), describe(leaf), at=pointer.to(index, shape)
            ) from None
    return elements.astype(spec.dtype)


def _as_it_is(leaf: Any, _dtype: np.dtype) -> Any:
    return leaf


def _integer(leaf: int, dtype: np.dtype) -> int:
    least, most = bounds_of(dtype)
    if not least <= leaf <= most:
        raise Misfit(f"{dtype.name}, {least} to {most}")
    return leaf


def _float(leaf: float, dtype: np.dtype) -> float:
    try:
        number = float(leaf)
    except OverflowError:
        raise Misfit(f"{dtype.name}, a number within double precision") from None
    if _has_lost_a_number(np.array(number), _narrowed(np.array(number), dtype)):
        raise Misfit(f"{dtype.name}, a number that it holds")
    return number


def _bytes(leaf: object, _dtype: np.dtype) -> bytes:
    if isinstance(leaf, str):
        return encode_text(leaf)
    if not isinstance(leaf, dict) or leaf.keys() != {BASE64_KEY}:
        raise Misfit('a string, or {"b64": "..."} alone in its object')
    return decode_base64(leaf[BASE64_KEY])


def encode_text(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Misfit("text of whole characters, without half a surrogate pair") from None


def decode_base64(text: object) -> bytes:
    """Standard base64; as TensorFlow Serving does, white space and missing padding are forgiven.
    So are the alphabet for URLs and a data URL's beginning, as browsers write them. Raises
    Misfit."""
    if type(text) is not str:
        raise Misfit('a string, or {"b64": "..."} with a string alone in its object')
    try:
        decoded: bytes = pybase64.b64decode(text, validate=True)
    except ValueError:
        compact = "".join(_DATA_URL.sub("", text, 1).split()).rstrip("=")
        decoded = _decode_untidy_base64(compact.translate(_URL_ALPHABET))
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
    if is_integer(dtype):
        return _Kind((int,), f"{dtype.name}, a whole number written without a point", _integer)
    if reason := not_carried(dtype, JSON):
        return _Kind((), f"another dialect: {reason}", _as_it_is)
    return _Kind((int, float), f"{dtype.name}, a number", _float)


def describe(value: object) -> str:
    """What came, short enough for a message."""
    if isinstance(value, HugeNumber):
        return f"{shown(value)}, too big to be stored in a double"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return f'the string "{shown(value)}"'
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        keys = [shown(str(key)) for key in islice(value, _SHOWN_KEYS)]
        more = ", ..." if len(value) > _SHOWN_KEYS else ""
        return f"an object with the keys {', '.join(keys) or 'none'}{more}"
    if isinstance(value, int) and value.bit_length() > 256:
        return "an integer of more than 77 digits"
    return str(value)

"""TensorFlow Serving's JSON, where it holds nothing but numbers, to arrays.

simdjson flattens nested lists, so `[[1,2],[3]]` would pass for three numbers: the shapes are proved
beside it, by the brackets, commas and keys that are left of the text when the numbers are taken
away. Whatever is not regular is left to `values`, which is slower and says what is wrong.

Of a small array alone, as nearly every request is, what is left says the shape, and is the same
for every request of that shape: it is read once. Each place then has its number where there are as
many numbers as places, for JSON has no two between the same commas.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import simdjson

from service.gateway.decode.simd import NotRegular, flat_array, flat_wide, read_by_simdjson
from sluice.wire.signature import TensorSpec
from sluice.wire.tensors import MAX_RANK, Array

SIGNATURE, ROWS, COLUMNS = "signature_name", "instances", "inputs"
_NUMBER_CHARACTERS = b"0123456789.eE+- \t\r\n"
_CACHED_LENGTH = 1 << 14
MAX_NAMED_ROWS = 1 << 18

SpecsFor = Callable[[str | None], Mapping[str, TensorSpec] | None]


class Numbers(NamedTuple):
    """A JSON object that holds one regular array for each input, and at most a signature's name
    beside them."""

    key: str
    signature_name: str | None
    arrays: dict[str, Array]


def regular_numbers(body: bytes, specs_for: SpecsFor) -> Numbers | None:
    """What `body` holds, or None where this way cannot be sure of it.

    `specs_for` is asked with the signature's name, and answers its inputs, or None where one of
    them takes no real or whole numbers.
    """
    return read_by_simdjson(body, lambda document: _numbers_in(document, body, specs_for))


def _numbers_in(document: Any, body: bytes, specs_for: SpecsFor) -> Numbers | None:
    if not isinstance(document, simdjson.Object):
        return None
    bare = body.translate(None, _NUMBER_CHARACTERS)
    known = _key_and_shape(bare) if len(bare) <= _CACHED_LENGTH else None
    if known is None:
        return _numbers_by_keys(document, bare, len(body), specs_for)
    key, shape = known
    specs = specs_for(None)
    if not specs or len(specs) != 1:
        return None
    ((name, spec),) = specs.items()
    return Numbers(key, None, {name: flat_array(document[key], spec.dtype).reshape(shape)})


def _numbers_by_keys(document: Any, bare: bytes, limit: int, specs_for: SpecsFor) -> Numbers | None:
    keys = list(document)
    name = document[SIGNATURE] if SIGNATURE in keys else None
    if not isinstance(name, str | None) or (name is None) != (len(keys) == 1) or len(keys) > 2:
        return None
    key = keys[1] if keys[0] == SIGNATURE else keys[0]
    specs = specs_for(name)
    if not specs or key not in (ROWS, COLUMNS):
        return None
    arrays, bare_value = _arrays_in(document[key], specs, key, limit)
    bare_of = {key: bare_value, SIGNATURE: _bare(f'"{name}"')}
    return Numbers(key, name, arrays) if bare == _bare_object(keys, bare_of) else None


@lru_cache(maxsize=64)
def _key_and_shape(bare: bytes) -> tuple[str, tuple[int, ...]] | None:
    """Of a document that is one regular array under one of our keys; None for any other."""
    for key in (ROWS, COLUMNS):
        begin = b"{%b:" % _bare(f'"{key}"')
        lists = bare.removeprefix(begin).removesuffix(b"}")
        shape = _shape_of_bare(lists)
        if 0 < len(shape) <= MAX_RANK and bare == b"%b%b}" % (begin, _nested_lists(shape)):
            return key, shape
    return None


def _shape_of_bare(lists: bytes) -> tuple[int, ...]:
    """(3, 2) of `[[,],[,],[,]]`: the lengths along the first elements, the innermost first."""
    shape: list[int] = []
    length = 0  # of an element
    for start in range(len(lists) - len(lists.lstrip(b"[")), 0, -1):
        size = 1
        while lists.startswith(b",", start + size * (length + 1) - 1):
            size += 1
        shape.insert(0, size)
        length = size * (length + 1) + 1
    return tuple(shape)


def _arrays_in(
    value: Any, specs: Mapping[str, TensorSpec], key: str, limit: int
) -> tuple[dict[str, Array], bytes]:
    """The inputs' arrays, and the text less its numbers that `value` has if they are right."""
    if isinstance(value, simdjson.Object):
        if key == COLUMNS:
            return _columns(value, specs, limit)
    elif isinstance(value, simdjson.Array) and len(value):
        if isinstance(value[0], simdjson.Object):
            if key == ROWS:
                return _rows(value, specs, limit)
        elif len(specs) == 1:
            ((name, spec),) = specs.items()
            array = _array(value, spec.dtype)
            return {name: array}, _bare_lists(array.shape, limit)
    raise NotRegular


def _columns(
    columns: Any, specs: Mapping[str, TensorSpec], limit: int
) -> tuple[dict[str, Array], bytes]:
    """`{"a": [...], "b": [...]}`."""
    names = _names(columns, specs)
    arrays = {name: _array(columns[name], specs[name].dtype) for name in names}
    bare_of = {name: _bare_lists(array.shape, limit) for name, array in arrays.items()}
    return arrays, _bare_object(names, bare_of)


def _rows(rows: Any, specs: Mapping[str, TensorSpec], limit: int) -> tuple[dict[str, Array], bytes]:
    """`[{"a": [...], "b": 5}, ...]`, where every row has the keys of the first in its order."""
    names, count = _names(rows[0], specs), len(rows)
    shapes = {name: _shape_of(rows[0][name]) for name in names}
    bare_of = {name: _bare_lists(shape, limit) for name, shape in shapes.items()}
    bare_row = _bare_object(names, bare_of)
    elements = sum(map(math.prod, shapes.values()))
    if count > MAX_NAMED_ROWS or count * max(elements, len(bare_row)) > limit:
        raise NotRegular  # nothing is allocated that the body cannot fill
    arrays = {name: np.empty((count, *shapes[name]), specs[name].dtype) for name in names}
    with np.errstate(over="ignore"):  # as in flat_array
        for index, row in enumerate(rows):
            if not isinstance(row, simdjson.Object) or list(row) != names:
                raise NotRegular
            for name in names:
                arrays[name][index] = _element(row[name], specs[name].dtype, shapes[name])
    return arrays, _bare_list(bare_row, count)


def _names(values: Any, specs: Mapping[str, TensorSpec]) -> list[str]:
    """The keys of an object in their order, if they are the inputs' names, each once."""
    names = list(values)
    if len(names) != len(specs) or set(names) != specs.keys():
        raise NotRegular
    return names


def _element(value: Any, dtype: np.dtype, shape: tuple[int, ...]) -> Any:
    """What one row holds for one input."""
    if shape:
        return flat_wide(value, dtype).reshape(shape)
    if dtype.kind == "f":
        if type(value) not in (int, float):
            raise NotRegular
    elif type(value) is not int or not np.iinfo(dtype).min <= value <= np.iinfo(dtype).max:
        raise NotRegular
    return value


def _array(lists: Any, dtype: np.dtype) -> Array:
    shape = _shape_of(lists)
    if not shape:
        raise NotRegular
    return flat_array(lists, dtype).reshape(shape)


def _shape_of(numbers: Any) -> tuple[int, ...]:
    """The shape, if the lists are regular: their lengths along the first elements."""
    shape: list[int] = []
    while isinstance(numbers, simdjson.Array):
        if not len(numbers) or len(shape) == MAX_RANK:
            raise NotRegular
        shape.append(len(numbers))
        numbers = numbers[0]
    return tuple(shape)


def _bare(text: str) -> bytes:
    return text.encode().translate(None, _NUMBER_CHARACTERS)


def _bare_object(keys: Iterable[str], bare_of: Mapping[str, bytes]) -> bytes:
    """`{"imag":[,]}` for `{"image": [1, 2]}`; what is escaped in the body never looks like this."""
    return b"{%b}" % b",".join([b"%b:%b" % (_bare(f'"{key}"'), bare_of[key]) for key in keys])


def _bare_lists(shape: tuple[int, ...], limit: int) -> bytes:
    """`[[,],[,],[,]]` for (3, 2). Raises NotRegular if it is longer than `limit`."""
    length = 0
    for size in reversed(shape):
        length = (length + 1) * size + 1
    if length > limit:  # of [[[[1]]], 2, 2, ...] the first shape is no measure of the text
        raise NotRegular
    return _cached_lists(shape) if length <= _CACHED_LENGTH else _nested_lists(shape)


def _nested_lists(shape: tuple[int, ...]) -> bytes:
    bare = b""
    for size in reversed(shape):
        bare = _bare_list(bare, size)
    return bare


_cached_lists = lru_cache(maxsize=64)(_nested_lists)


def _bare_list(bare: bytes, size: int) -> bytes:
    return b"[" + (bare + b",") * (size - 1) + bare + b"]"

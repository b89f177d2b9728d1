"""JSON to Python objects, by TensorFlow Serving's reading and within bounds.

Python takes 8 to 60 bytes for a number of two characters, 70 for `[]` and 240 for `{"a":1}`, so
what a body would become is counted on its bytes before anything is made of it.
"""

import json
import math
import re
from typing import Any, NamedTuple

import numpy as np

from service.gateway.decode.slips import slip_in
from service.gateway.errors import MalformedRequest, shown


class _Bound(NamedTuple):
    """How many of a kind of value a body may hold, and the character that each has one of."""

    kind: str
    most: int
    mark: bytes
    marks_each: int = 1


# Where every bound is reached at once, the objects take some 400 MB. A batch of 27 pictures of
# 224 x 224 x 3 holds as many numbers as are read; they are 80 MB of JSON, or 16 MB of .npy.
_VALUES = _Bound("values", 1 << 22, b",")
_BOUNDS = (
    _VALUES,
    _Bound("lists", 1 << 20, b"["),
    _Bound("strings", 1 << 20, b'"', marks_each=2),
    _Bound("objects", 1 << 18, b"{"),
)
MAX_VALUES = _VALUES.most
_FEWEST = min(bound.most for bound in _BOUNDS)
_NO_MARKS = bytes(set(range(256)) - set(b"".join(bound.mark for bound in _BOUNDS)))

_BLOCK = 1 << 17  # characters that are compared at a time, within a core's cache

_HALF_CHARACTER = re.compile(rb"\\u[dD][89a-fA-F]")


class HugeNumber(str):
    """The text of a number that no double holds, such as 1e400; put in its place by the parser."""

    __slots__ = ()


def parse_object(body: bytes) -> dict[str, Any]:
    """A JSON object: NaN and Infinity are numbers, and of equal keys the first counts.

    Raises MalformedRequest for any other document, for text after it, for strings that are no
    Unicode, and for more values than JSON is read up to.
    """
    document = parse_json(body)
    if not isinstance(document, dict):
        advice = slip_in(body) or 'expected {"instances": [...]} or {"inputs": ...}'
        raise MalformedRequest(f"The body is not a JSON object; {advice}")
    return document


def parse_json(body: bytes, what: str = "The body") -> Any:
    """Any JSON value, as `parse_object` reads it."""
    _check_bounds(body, what)
    try:
        document = _DECODER.decode(body.decode("utf-8-sig"))  # Windows writes a mark before it
        # Searching for two characters takes as long as parsing; for one it costs nothing.
        if b"\\" in body and _HALF_CHARACTER.search(body):
            json.dumps(document, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        where = f"{error.msg} at line {error.lineno} column {error.colno} (character {error.pos})"
        slip = slip_in(body, error.doc[error.pos : error.pos + 20])
        raise MalformedRequest(
            f"{what} is not JSON: {f'{slip} ({where})' if slip else where}"
        ) from None
    except RecursionError:
        raise MalformedRequest(f"{what} is not usable JSON: nested too deeply") from None
    except UnicodeEncodeError:
        raise MalformedRequest(
            f"{what} is not usable JSON: a string holds half of a surrogate pair (\\ud800 to "
            "\\udfff), which is no character; write both halves, or the character itself"
        ) from None
    except ValueError as error:  # no UTF-8, or an integer of thousands of digits
        raise MalformedRequest(
            f"{what} is not usable JSON: {slip_in(body) or shown(str(error))}"
        ) from None
    return document


def check_values(body: bytes) -> None:
    """Raises MalformedRequest if there are more values than JSON is read up to, by any way."""
    if len(body) > 2 * MAX_VALUES:  # a value and a comma take two characters
        _check(_VALUES, _count(body, _VALUES.mark), "The body")


def _count(body: bytes, mark: bytes) -> int:
    """`body.count(mark)`, which looks for each one anew: of marks as close together as the commas
    between numbers it takes four times as long."""
    characters = np.frombuffer(body, np.uint8)
    starts = range(0, len(characters), _BLOCK)
    return sum(int(np.count_nonzero(characters[at : at + _BLOCK] == mark[0])) for at in starts)


def _check_bounds(body: bytes, what: str) -> None:
    if len(body) > _FEWEST:
        marks = body.translate(None, _NO_MARKS)
        for bound in _BOUNDS:
            _check(bound, marks.count(bound.mark), what)


def _check(bound: _Bound, marks: int, what: str) -> None:
    if marks > bound.most * bound.marks_each:
        raise MalformedRequest(
            f"{what} holds more than {bound.most} {bound.kind}, and JSON is read up to so many; "
            "send fewer rows in one request, or arrays as .npy, .npz or binary tensors"
        )


def _float(text: str) -> float | HugeNumber:
    number = float(text)
    return HugeNumber(text) if math.isinf(number) else number


def _first_of_equal_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(reversed(pairs)) if len(pairs) > 1 else dict(pairs)


_DECODER = json.JSONDecoder(parse_float=_float, object_pairs_hook=_first_of_equal_keys)

"""The fields of the tables in the file of keys, each held to what it may be."""

from collections.abc import Callable, Mapping
from typing import Any

from service.gateway.access.grant import ALL_MODELS, OPERATIONS, Grant
from service.gateway.access.keys import ID_FORM, ID_IN_WORDS
from service.gateway.access.limits import (
    BYTES,
    NO_LIMITS,
    REQUESTS,
    ROWS,
    Limit,
    Limits,
    Quota,
    Rate,
)
from sluice.wire.nearest import unknown_name

MOST = 1e12  # of any limit, so that sums of them stay numbers
LIMITS = ("requests_per_s", "burst", "rows_per_s", "bytes_per_s", "requests_per_day", "places")
OF_A_GRANT = ("models", "operations", "note", *LIMITS)


class BadAccessFile(ValueError):
    """The text is no list of keys; the message names the place."""


def grant_of(place: str, table: Mapping[str, Any], key_id: str) -> Grant:
    """What the holder of a key, or somebody without one ("") may. Raises BadAccessFile."""
    models = value_of(
        place, table, "models", are_texts, f'a list of names or patterns; "{ALL_MODELS}" is all'
    )
    operations = value_of(
        place, table, "operations", _are_operations, f"some of {', '.join(OPERATIONS)}", OPERATIONS
    )
    return Grant(key_id, tuple(models), frozenset(operations), limits_of(place, table))


def limits_of(place: str, table: Mapping[str, Any]) -> Limits:
    """Raises BadAccessFile."""
    per_s = {kind: number_of(place, table, f"{kind}_per_s") for kind in (REQUESTS, ROWS, BYTES)}
    burst = number_of(place, table, "burst", 1)
    if burst is not None and per_s[REQUESTS] is None:
        raise BadAccessFile(f"{place}.burst goes with requests_per_s, which is missing")
    rates: list[Limit] = [
        # At least one request, and of rows and bytes what a second brings.
        Rate(kind, rate, max(rate, 1.0) if burst is None or kind != REQUESTS else burst)
        for kind, rate in per_s.items()
        if rate is not None
    ]
    a_day = _whole(place, table, "requests_per_day")
    if a_day is not None:
        rates.append(Quota(a_day))
    places = _whole(place, table, "places")
    return Limits(tuple(rates), places) if rates or places else NO_LIMITS


def number_of(
    place: str, table: Mapping[str, Any], name: str, least: float = 1e-6, most: float = MOST
) -> float | None:
    """None where it is not there. Raises BadAccessFile."""
    value = table.get(name)
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and least <= value <= most):
        raise BadAccessFile(
            f"{place}.{name}: expected a number {_range(least, most)}, got {value!r}"
        )
    return float(value)


def _range(least: float, most: float) -> str:
    return "over 0" if most == MOST else f"from {least:g} to {most:g}"


def _whole(place: str, table: Mapping[str, Any], name: str) -> int | None:
    value = number_of(place, table, name, 1)
    if value is not None and value != int(value):
        raise BadAccessFile(f"{place}.{name}: expected a whole number, got {value!r}")
    return None if value is None else int(value)


def value_of(
    place: str,
    table: Mapping[str, Any],
    name: str,
    fits: Callable[[Any], bool],
    expected: str,
    default: Any = None,
) -> Any:
    """The field, which `fits`. Raises BadAccessFile, also where it and a default are missing."""
    value = table.get(name, default)
    if value is None:
        raise BadAccessFile(f"{place}.{name} is missing: {expected}")
    if not fits(value):
        raise BadAccessFile(f"{place}.{name}: expected {expected}, got {value!r}")
    return value


def named_table(
    tables: str, name: str, given: object, known: tuple[str, ...]
) -> tuple[str, Mapping[str, Any]]:
    """The place of one of `tables` in the file, and its fields, of those that are `known`. Raises
    BadAccessFile."""
    place = f"{tables}.{name}"
    if not ID_FORM.fullmatch(name):
        raise BadAccessFile(f"{place}: a name is {ID_IN_WORDS}")
    table = table_of(place, given)
    check_names(place, table, known)
    return place, table


def table_of(place: str, given: object) -> Mapping[str, Any]:
    """Raises BadAccessFile."""
    if not isinstance(given, dict):
        raise BadAccessFile(f"{place}: expected a table, got {given!r}")
    return given


def check_names(place: str, table: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Raises BadAccessFile for a field that there is not, with the nearest."""
    if fault := unknown_name(table, known):
        raise BadAccessFile(f"{f'{place}.' if place else ''}{fault}")


def is_a(kind: type) -> Callable[[Any], bool]:
    """Whether a value is of that type."""
    return lambda value: isinstance(value, kind)


def are_texts(value: Any) -> bool:
    """Whether it is a list of texts, none of them empty."""
    return isinstance(value, list) and all(isinstance(each, str) and each for each in value)


def _are_operations(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(each in OPERATIONS for each in value)

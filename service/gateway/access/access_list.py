"""The file of keys, in TOML: for each the SHA-256 of it, and what its holder may ask.

    [keys.acme]
    sha256 = "…"                  # `sluice keys new acme` writes it, and shows the key once
    models = ["digits", "ab-*"]   # names or patterns
    operations = ["predict"]      # of predict, metadata, status; all three if left out
    expires = 2027-01-01T00:00:00Z
    note = "Acme's phones"
    requests_per_s = 50           # and the other limits, each none if left out
    burst = 100

    [anonymous]                   # what a caller without a key may; without this table, nothing
    models = ["digits"]
    requests_per_s = 1            # here for each address

TOML, as people write and review it: it has comments and dates, and Python reads it by itself.
"""

import datetime
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from service.gateway.access.grant import ALL_MODELS, OPERATIONS, Grant
from service.gateway.access.keys import DIGEST_FORM, ID_FORM
from service.gateway.access.limits import BYTES, NO_LIMITS, REQUESTS, ROWS, Limits, Quota, Rate
from sluice.wire.nearest import nearest

ANONYMOUS = "anonymous"
MOST = 1e12  # of any limit, so that sums of them stay numbers
_TABLES = ("keys", ANONYMOUS)
_OF_A_GRANT = (
    "models",
    "operations",
    "note",
    "requests_per_s",
    "burst",
    "rows_per_s",
    "bytes_per_s",
    "requests_per_day",
    "places",
)
_OF_A_KEY = ("sha256", "expires", "revoked", *_OF_A_GRANT)


class BadAccessFile(ValueError):
    """The text is no list of keys; the message names the place."""


@dataclass(frozen=True)
class KeyEntry:
    """A key as it is kept. `expires` is in seconds since 1970, inf for never."""

    digest: str
    expires: float
    revoked: bool
    note: str
    grant: Grant


@dataclass(frozen=True)
class AccessList:
    """The keys by their id, and what a caller without one may: None for nothing."""

    keys: Mapping[str, KeyEntry]
    anonymous: Grant | None


def read_access(text: str) -> AccessList:
    """Raises BadAccessFile.

    >>> read_access('[anonymous]\\nmodels = ["digits"]').anonymous.names("digits")
    True
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadAccessFile(f"this is no TOML: {error}") from None
    _check_names("", document, _TABLES)
    keys = _table("keys", document.get("keys", {}))
    anonymous = document.get(ANONYMOUS)
    return AccessList(
        {key_id: _entry(key_id, entry) for key_id, entry in keys.items()},
        None if anonymous is None else _anonymous(anonymous),
    )


def _entry(key_id: str, given: object) -> KeyEntry:
    place = f"keys.{key_id}"
    if not ID_FORM.fullmatch(key_id):
        raise BadAccessFile(f"{place}: an id is letters, digits, '-' and '.', up to 64 of them")
    table = _table(place, given)
    _check_names(place, table, _OF_A_KEY)
    digest = table.get("sha256")
    if not (isinstance(digest, str) and DIGEST_FORM.fullmatch(digest)):  # it may be the key itself
        raise BadAccessFile(f"{place}.sha256: expected 64 hexadecimal digits, in lower case")
    return KeyEntry(
        digest,
        _expires(place, table),
        _value(place, table, "revoked", _is(bool), "true or false", False),
        _value(place, table, "note", _is(str), "a text", ""),
        _grant(place, table, key_id),
    )


def _anonymous(given: object) -> Grant:
    table = _table(ANONYMOUS, given)
    _check_names(ANONYMOUS, table, _OF_A_GRANT)
    return _grant(ANONYMOUS, table, "")


def _grant(place: str, table: Mapping[str, Any], key_id: str) -> Grant:
    models = _value(
        place, table, "models", _is_texts, f'a list of names or patterns; "{ALL_MODELS}" is all'
    )
    operations = _value(
        place, table, "operations", _are_operations, f"some of {', '.join(OPERATIONS)}", OPERATIONS
    )
    return Grant(key_id, tuple(models), frozenset(operations), _limits(place, table))


def _limits(place: str, table: Mapping[str, Any]) -> Limits:
    per_s = {kind: _number(place, table, f"{kind}_per_s") for kind in (REQUESTS, ROWS, BYTES)}
    burst = _number(place, table, "burst", 1)
    if burst is not None and per_s[REQUESTS] is None:
        raise BadAccessFile(f"{place}.burst goes with requests_per_s, which is missing")
    rates: list[Rate | Quota] = [
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


def _number(place: str, table: Mapping[str, Any], name: str, least: float = 1e-6) -> float | None:
    value = table.get(name)
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and least <= value <= MOST):
        raise BadAccessFile(f"{place}.{name}: expected a number over 0, got {value!r}")
    return float(value)


def _whole(place: str, table: Mapping[str, Any], name: str) -> int | None:
    value = _number(place, table, name, 1)
    if value is not None and value != int(value):
        raise BadAccessFile(f"{place}.{name}: expected a whole number, got {value!r}")
    return None if value is None else int(value)


def _expires(place: str, table: Mapping[str, Any]) -> float:
    given = table.get("expires")
    if given is None:
        return float("inf")
    if isinstance(given, datetime.datetime) and given.tzinfo is not None:
        return given.timestamp()
    raise BadAccessFile(
        f"{place}.expires: expected a time with its zone, as 2027-01-01T00:00:00Z, got {given}"
    )


def _value(
    place: str,
    table: Mapping[str, Any],
    name: str,
    fits: Callable[[Any], bool],
    expected: str,
    default: Any = None,
) -> Any:
    value = table.get(name, default)
    if value is None:
        raise BadAccessFile(f"{place}.{name} is missing: {expected}")
    if not fits(value):
        raise BadAccessFile(f"{place}.{name}: expected {expected}, got {value!r}")
    return value


def _table(place: str, given: object) -> Mapping[str, Any]:
    if not isinstance(given, dict):
        raise BadAccessFile(f"{place}: expected a table, got {given!r}")
    return given


def _check_names(place: str, table: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in table:
        if name not in known:
            meant = nearest(name, known)
            advice = f"did you mean {meant}?" if meant else f"there are {', '.join(known)}"
            raise BadAccessFile(f"{f'{place}.' if place else ''}{name} is not known; {advice}")


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) and each for each in value)


def _are_operations(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(each in OPERATIONS for each in value)

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

    [issuers.acme]                # whose tokens are taken: issuers.py

TOML, as people write and review it: it has comments and dates, and Python reads it by itself.
"""

import datetime
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.gateway.access.fields import (
    OF_A_GRANT,
    BadAccessFile,
    check_names,
    grant_of,
    is_a,
    named_table,
    table_of,
    value_of,
)
from service.gateway.access.grant import Grant
from service.gateway.access.issuers import Issuer, read_issuer
from service.gateway.access.keys import DIGEST_FORM

ANONYMOUS = "anonymous"
_TABLES = ("keys", "issuers", ANONYMOUS)
_OF_A_KEY = ("sha256", "expires", "revoked", *OF_A_GRANT)


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
    """The keys by their id, what a caller without one may (None for nothing), and those whose
    tokens are taken, by what a token calls them."""

    keys: Mapping[str, KeyEntry]
    anonymous: Grant | None
    issuers: Mapping[str, Issuer]


def read_access(text: str) -> AccessList:
    """Raises BadAccessFile.

    >>> read_access('[anonymous]\\nmodels = ["digits"]').anonymous.names("digits")
    True
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadAccessFile(f"this is no TOML: {error}") from None
    check_names("", document, _TABLES)
    keys = table_of("keys", document.get("keys", {}))
    anonymous = document.get(ANONYMOUS)
    named = table_of("issuers", document.get("issuers", {}))
    issuers = [read_issuer(name, given) for name, given in named.items()]
    return AccessList(
        {key_id: _entry(key_id, entry) for key_id, entry in keys.items()},
        None if anonymous is None else _anonymous(anonymous),
        {each.issuer: each for each in issuers},
    )


def _entry(key_id: str, given: object) -> KeyEntry:
    place, table = named_table("keys", key_id, given, _OF_A_KEY)
    digest = table.get("sha256")
    if not (isinstance(digest, str) and DIGEST_FORM.fullmatch(digest)):  # it may be the key itself
        raise BadAccessFile(f"{place}.sha256: expected 64 hexadecimal digits, in lower case")
    return KeyEntry(
        digest,
        _expires(place, table),
        value_of(place, table, "revoked", is_a(bool), "true or false", False),
        value_of(place, table, "note", is_a(str), "a text", ""),
        grant_of(place, table, key_id),
    )


def _anonymous(given: object) -> Grant:
    table = table_of(ANONYMOUS, given)
    check_names(ANONYMOUS, table, OF_A_GRANT)
    return grant_of(ANONYMOUS, table, "")


def _expires(place: str, table: Mapping[str, Any]) -> float:
    given = table.get("expires")
    if given is None:
        return float("inf")
    if isinstance(given, datetime.datetime) and given.tzinfo is not None:
        return given.timestamp()
    raise BadAccessFile(
        f"{place}.expires: expected a time with its zone, as 2027-01-01T00:00:00Z, got {given}"
    )

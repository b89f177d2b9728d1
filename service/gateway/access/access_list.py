"""The file of keys, in TOML: for each the SHA-256 of it, and what its holder may ask.

    [keys.acme]
    sha256 = "…"                  # `sluice keys new acme` writes it, and shows the key once
    models = ["digits", "ab-*"]   # names or patterns
    operations = ["predict"]      # of predict, metadata, status; all three if left out
    expires = 2027-01-01T00:00:00Z
    note = "Acme's phones"
    requests_per_s = 50           # and the other limits, each none if left out
    burst = 100
    certificates = ["DNS:phone.acme.example"]  # of clients that need not show the key

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
    are_texts,
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
_OF_A_KEY = ("sha256", "certificates", "expires", "revoked", *OF_A_GRANT)


@dataclass(frozen=True)
class KeyEntry:
    """A key as it is kept. `digest` is "" where it is for certificates alone, whose names are in
    `certificates`; `expires` is in seconds since 1970, inf for never."""

    digest: str
    certificates: tuple[str, ...]
    expires: float
    revoked: bool
    note: str
    grant: Grant


@dataclass(frozen=True)
class AccessList:
    """The keys by their id; their ids by the SHA-256 of the key, and by the names of certificates;
    what a caller without one may (None for nothing); and those whose tokens are taken, by what a
    token calls them."""

    keys: Mapping[str, KeyEntry]
    digests: Mapping[str, str]
    certificates: Mapping[str, str]
    anonymous: Grant | None
    issuers: Mapping[str, Issuer]


def read_access(text: str, asks_clients: bool = True) -> AccessList:
    """`asks_clients`: whether clients are asked for certificates. Raises BadAccessFile.

    >>> read_access('[anonymous]\\nmodels = ["digits"]').anonymous.names("digits")
    True
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadAccessFile(f"this is no TOML: {error}") from None
    check_names("", document, _TABLES)
    keys = {
        key_id: _entry(key_id, entry)
        for key_id, entry in table_of("keys", document.get("keys", {})).items()
    }
    anonymous = document.get(ANONYMOUS)
    named = table_of("issuers", document.get("issuers", {}))
    issuers = [read_issuer(name, given) for name, given in named.items()]
    return AccessList(
        keys,
        _by_digest(keys),
        _by_certificate(keys, asks_clients),
        None if anonymous is None else _anonymous(anonymous),
        {each.issuer: each for each in issuers},
    )


def _entry(key_id: str, given: object) -> KeyEntry:
    place, table = named_table("keys", key_id, given, _OF_A_KEY)
    certificates = _certificates(place, table)
    digest = table.get("sha256", "")
    is_digest = isinstance(digest, str) and DIGEST_FORM.fullmatch(digest)
    if not (is_digest or (certificates and "sha256" not in table)):  # it may be the key itself
        raise BadAccessFile(f"{place}.sha256: expected 64 hexadecimal digits, in lower case")
    return KeyEntry(
        digest,
        certificates,
        _expires(place, table),
        value_of(place, table, "revoked", is_a(bool), "true or false", False),
        value_of(place, table, "note", is_a(str), "a text", ""),
        grant_of(place, table, key_id),
    )


def _certificates(place: str, table: Mapping[str, Any]) -> tuple[str, ...]:
    if "certificates" not in table:
        return ()
    from service.gateway.tls.names import KINDS, canonical  # for those who have certificates

    given = value_of(place, table, "certificates", are_texts, "a list of names")
    try:
        return tuple(map(canonical, given))
    except ValueError:
        raise BadAccessFile(
            f"{place}.certificates: expected names of one of the kinds {', '.join(KINDS)}, as "
            f"DNS:phone.acme.example or subject:CN=phone,O=Acme, got {given}"
        ) from None


def _by_digest(keys: Mapping[str, KeyEntry]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key_id, entry in keys.items():
        if entry.digest and found.setdefault(entry.digest, key_id) != key_id:
            place = f"keys.{key_id}.sha256"
            raise BadAccessFile(f"{place}: it is the key {found[entry.digest]}'s already")
    return found


def _by_certificate(keys: Mapping[str, KeyEntry], asks_clients: bool) -> dict[str, str]:
    """The ids of keys by the names of their certificates."""
    found: dict[str, str] = {}
    for key_id, entry in keys.items():
        place = f"keys.{key_id}.certificates"
        if entry.certificates and not asks_clients:
            raise BadAccessFile(
                f"{place}: nobody is asked for one, as SLUICE_TLS_CLIENT_CA_FILE is not set"
            )
        for name in entry.certificates:
            if found.setdefault(name, key_id) != key_id:
                raise BadAccessFile(f"{place}: {name} is the key {found[name]}'s already")
    return found


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

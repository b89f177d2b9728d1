"""Who issues tokens that are taken here, as the file of keys has it.

[issuers.acme]
issuer = "https://login.acme.example"   # as the token's `iss` says it
audience = "sluice"
jwks = "https://login.acme.example/jwks.json"   # or a path
algorithms = ["RS256"]
leeway_s = 30
models = ["digits", "ab-*"]             # the most that its tokens may
models_claim = "models"                 # which of these a token may: a list, or words
operations_claim = "scope"
limits_claim = "limits"                 # as in this file, in place of those that follow
requests_per_s = 50                     # each subject's
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from service.gateway.access.fields import (
    LIMITS,
    BadAccessFile,
    are_texts,
    grant_of,
    is_a,
    named_table,
    number_of,
    value_of,
)
from service.gateway.access.grant import Grant
from sluice.wire.hosts import is_loopback

# What is signed with a key of which the public half is known: no HMAC, whose key signs too, and
# never "none".
ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
MOST_LEEWAY_S = 600.0
_CLAIMS = ("models_claim", "operations_claim", "limits_claim")
_FIELDS = (
    *("issuer", "audience", "jwks", "algorithms", "leeway_s", "models", "operations", "note"),
    *_CLAIMS,
    *LIMITS,
)


@dataclass(frozen=True)
class Issuer:
    """`grant` is the most that its tokens may; `claims` names those that say less, by field."""

    name: str
    issuer: str
    audience: tuple[str, ...]
    jwks: str
    algorithms: tuple[str, ...]
    leeway_s: float
    claims: Mapping[str, str]
    grant: Grant


def read_issuer(name: str, given: object) -> Issuer:
    """Raises BadAccessFile."""
    place, table = named_table("issuers", name, given, _FIELDS)
    text = is_a(str)
    algorithms = value_of(
        place, table, "algorithms", _are_algorithms, f"some of {', '.join(ALGORITHMS)}"
    )
    return Issuer(
        name,
        value_of(place, table, "issuer", text, "a text, as `iss` has it"),
        _audience(place, table),
        _source(place, table),
        tuple(algorithms),
        number_of(place, table, "leeway_s", 0, MOST_LEEWAY_S) or 0.0,
        {
            each.removesuffix("_claim"): value_of(place, table, each, text, "a claim's name")
            for each in _CLAIMS
            if each in table
        },
        grant_of(place, table, f"{name}:"),
    )


def _audience(place: str, table: Mapping[str, Any]) -> tuple[str, ...]:
    def fits(value: Any) -> bool:
        return bool(value) and (isinstance(value, str) or are_texts(value))

    given = value_of(place, table, "audience", fits, "a text, or a list of them")
    return (given,) if isinstance(given, str) else tuple(given)


def _source(place: str, table: Mapping[str, Any]) -> str:
    given: str = value_of(place, table, "jwks", is_a(str), "a path, or an address of https://")
    parts = urlsplit(given)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise BadAccessFile(f"{place}.jwks: over http:// anybody on the way can put keys there")
    return given


def _are_algorithms(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(each in ALGORITHMS for each in value)

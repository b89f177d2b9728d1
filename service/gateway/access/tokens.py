"""JSON Web Tokens (RFC 7519) of the issuers that the file of keys names, by PyJWT.

What a token says of itself is believed once its signature holds. Where its key is to be had is
never its own to say: `jku`, `x5u` and `jwk` in its head are not read, and `kid` only picks among
the keys of its issuer.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import quote

import jwt

from service.gateway.access.fields import (
    LIMITS,
    BadAccessFile,
    check_names,
    limits_of,
    table_of,
)
from service.gateway.access.grant import OPERATIONS, Grant
from service.gateway.access.issuers import Issuer
from service.gateway.access.key_sets import KeySet
from service.gateway.access.keys import digest_of
from service.gateway.access.limits import Limits
from service.gateway.errors import Unauthenticated

MOST_KEPT = 4096  # tokens that held, by their hash
MOST_CHARACTERS = 8192
MOST_SUBJECT = 200
_REQUIRED = ["exp", "iss", "aud", "sub"]
# The nearest class above says it; the library's own words may repeat what is in the token.
_WORDS: dict[type[Exception], str] = {
    jwt.ExpiredSignatureError: "has expired",
    jwt.ImmatureSignatureError: "is not valid yet",
    jwt.InvalidAudienceError: "is for another audience",
    jwt.InvalidIssuerError: "is of another issuer",
    jwt.InvalidSignatureError: "has a signature that does not hold",
    jwt.InvalidAlgorithmError: "is signed in a way that is not taken here",
    jwt.MissingRequiredClaimError: f"lacks one of {', '.join(_REQUIRED)}",
    jwt.PyJWTError: "cannot be read",
}


class _Held(NamedTuple):
    grant: Grant
    until: float  # seconds since 1970
    issuer: Issuer
    version: int  # of the issuer's keys


class Tokens:
    """For one event loop."""

    def __init__(self) -> None:
        self._key_sets: dict[str, KeySet] = {}
        self._held: dict[str, _Held] = {}

    def look(self, issuers: Iterable[Issuer]) -> None:
        """Begin to fetch the keys of these issuers that are old, or not there yet."""
        for issuer in issuers:
            self._keys_of(issuer).look()

    def problem(self, issuers: Iterable[Issuer]) -> str:
        """What is wrong with their keys; "" for nothing."""
        return "; ".join(filter(None, (self._keys_of(each).problem for each in issuers)))

    async def grant(self, token: str, issuers: Mapping[str, Issuer]) -> Grant:
        """What the token's holder may. Raises Unauthenticated."""
        digest = digest_of(token)
        held = self._held.get(digest)
        if held is not None and self._holds(held, issuers):
            return held.grant
        try:
            held = await self._verified(token, issuers)
        except jwt.PyJWTError as error:
            words = next(_WORDS[kind] for kind in type(error).__mro__ if kind in _WORDS)
            raise Unauthenticated(f"The token {words}") from None
        except (ValueError, OverflowError):  # a time without an end, half a character as a subject
            raise Unauthenticated(f"The token {_WORDS[jwt.PyJWTError]}") from None
        while len(self._held) >= MOST_KEPT:
            self._held.pop(next(iter(self._held)))
        self._held[digest] = held
        return held.grant

    def _holds(self, held: _Held, issuers: Mapping[str, Issuer]) -> bool:
        return (
            time.time() < held.until
            and issuers.get(held.issuer.issuer) == held.issuer
            and self._keys_of(held.issuer).version == held.version
        )

    async def _verified(self, token: str, issuers: Mapping[str, Issuer]) -> _Held:
        if len(token) > MOST_CHARACTERS:
            raise Unauthenticated(f"The token has more than {MOST_CHARACTERS} characters")
        head = jwt.get_unverified_header(token)
        said = jwt.decode(token, options={"verify_signature": False})
        issuer = issuers.get(str(said.get("iss")))
        if issuer is None:
            raise Unauthenticated("The token is of an issuer that is not known here")
        algorithm = head.get("alg")
        if algorithm not in issuer.algorithms:
            raise jwt.InvalidAlgorithmError
        keys = self._keys_of(issuer)
        key = await keys.find(str(head.get("kid", "")), algorithm)
        if key is None:
            raise Unauthenticated("The token is signed with a key that its issuer does not show")
        claims = jwt.decode(
            token,
            key,
            algorithms=list(issuer.algorithms),
            audience=issuer.audience,
            issuer=issuer.issuer,
            leeway=issuer.leeway_s,
            options={"require": _REQUIRED},
        )
        until = float(claims["exp"]) + issuer.leeway_s
        return _Held(_grant_of(issuer, claims), until, issuer, keys.version)

    def _keys_of(self, issuer: Issuer) -> KeySet:
        """Kept by where they are, through every change of the file."""
        if issuer.jwks not in self._key_sets:
            self._key_sets[issuer.jwks] = KeySet(issuer.jwks)
        return self._key_sets[issuer.jwks]


def _grant_of(issuer: Issuer, claims: Mapping[str, Any]) -> Grant:
    """The issuer's, less what the token's claims leave out. Raises Unauthenticated."""
    subject = str(claims["sub"])
    if not 0 < len(subject) <= MOST_SUBJECT:
        raise Unauthenticated(f"The token's subject has no or over {MOST_SUBJECT} characters")
    grant = replace(issuer.grant, id=f"{issuer.grant.id}{quote(subject, safe='@|')}")
    if "models" in issuer.claims:
        grant = replace(grant, within=tuple(_words(claims.get(issuer.claims["models"]))))
    if "operations" in issuer.claims:
        said = set(_words(claims.get(issuer.claims["operations"])))
        grant = replace(grant, operations=grant.operations & said & set(OPERATIONS))
    limits = claims.get(issuer.claims.get("limits", ""))
    if limits is not None:
        grant = replace(grant, limits=_limits_of(limits))
    return grant


def _limits_of(claim: object) -> Limits:
    """Raises Unauthenticated: a limit that nobody knows would else be none."""
    try:
        table = table_of("limits", claim)
        check_names("limits", table, LIMITS)
        return limits_of("limits", table)
    except BadAccessFile:
        raise Unauthenticated("The token's limits cannot be read") from None


def _words(claim: object) -> list[str]:
    """Of a list, or of a text as OAuth writes scopes.

    >>> _words("predict status"), _words(["a b", 1]), _words(None)
    (['predict', 'status'], ['a b'], [])
    """
    if isinstance(claim, str):
        return claim.split()
    return [each for each in claim if isinstance(each, str)] if isinstance(claim, list) else []

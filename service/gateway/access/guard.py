"""The guard at the door: whose request this is, and whether it may be asked."""

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from service.gateway.access.access_list import AccessList, KeyEntry, read_access
from service.gateway.access.account import FREE, Account, AnyAccount, unheard
from service.gateway.access.addresses import address_of
from service.gateway.access.book import book_of
from service.gateway.access.credentials import credential_of
from service.gateway.access.grant import EVERYTHING, Grant
from service.gateway.access.keys import PREFIX, digest_of, is_of
from service.gateway.access.limits import NO_LIMITS, Store
from service.gateway.access.watched import Watched
from service.gateway.dates import utc
from service.gateway.errors import Unauthenticated
from service.gateway.settings import Settings
from service.gateway.variables import InvalidSetting
from sluice.wire.hosts import is_loopback

if TYPE_CHECKING:
    from service.gateway.access.tokens import Tokens

MOST_NAMES = 5  # of a certificate, in a message
MOST_ACCOUNTS = 10_000  # that are kept at hand; what was spent is in the book
_HOW = "`Authorization: Bearer KEY` or `X-API-Key: KEY`"


class Holder(NamedTuple):
    """Whose request it is: what they may ask, and on whose limits it is counted."""

    grant: Grant
    account: AnyAccount


_ANYBODY = Holder(EVERYTHING, FREE)


class OpenGuard:
    """Asks nobody."""

    asks = False
    takes_certificates = False
    remark = ""

    def look(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def known(self, headers: Mapping[str, str]) -> Holder:
        del headers
        return _ANYBODY

    async def identify(self, headers: Mapping[str, str], certificate: bytes, peer: str) -> Holder:
        del headers, certificate, peer
        return _ANYBODY


class Guard:
    """Knows callers by the file of keys; `asks_clients`, whether they are asked for certificates.
    `refused` is told of each caller over its limits. For one event loop. Raises ValueError where
    the file cannot be used at first."""

    asks = True

    def __init__(
        self,
        path: Path,
        store: Store,
        proxies: int,
        asks_clients: bool,
        refused: Callable[[str], None],
    ) -> None:
        self._tokens: Tokens | None = None  # none is taken until the file names an issuer
        self._file = Watched(path, partial(self._read, asks_clients=asks_clients))
        self._store, self._proxies, self._refused = store, proxies, refused
        self._accounts: dict[str, Holder] = {}  # by their names
        # By keys of `_known_in`, whom nobody has to look up before `_known_until`.
        self._known: dict[str, Holder] = {}
        self._known_in: AccessList | None = None
        self._known_until = 0.0

    @property
    def takes_certificates(self) -> bool:
        """Whether a certificate may stand for a key."""
        return bool(self._file.current.certificates)

    @property
    def remark(self) -> str:
        """What whoever looks at readiness should know; "" for nothing."""
        if self._file.problem:
            return "the file of keys cannot be used as it is (the log says why); the one before is"
        issuers = self._file.current.issuers.values()
        if self._tokens is not None and self._tokens.problem(issuers):
            return "the keys of an issuer of tokens cannot be had (the log says why)"
        return self._store.problem

    async def close(self) -> None:
        await self._store.close()

    def look(self) -> None:
        """Begin to see whether the file has changed, in an event loop: also while nobody asks."""
        self._file.look_ahead()
        if self._tokens is not None:
            self._tokens.look(self._file.current.issuers.values())
        self._store.look()

    def known(self, headers: Mapping[str, str]) -> Holder | None:
        """Who shows a key in these headers that has been looked up since the file was looked at,
        and cannot have expired since; None for all else, which is for `identify`."""
        if time.monotonic() >= self._known_until or self._known_in is not self._file.current:
            return None
        return self._known.get(credential_of(headers))

    async def identify(self, headers: Mapping[str, str], certificate: bytes, peer: str) -> Holder:
        """Who sent these headers, or gRPC metadata, by lower-case name, over a connection from
        `peer` whose client showed this certificate (PEM, b"" for none). What is shown with the
        request counts before it. Raises Unauthenticated."""
        known = self.known(headers)
        if known is not None:
            return known
        access = await self._file.fresh()
        credential = credential_of(headers)
        if not credential:
            return self._holder(_of_certificate(certificate, access), peer, headers)
        if self._tokens is not None and access.issuers and not credential.startswith(PREFIX):
            grant = await self._tokens.grant(credential, access.issuers)
            return self._holder(grant, peer, headers)
        holder = self._holder(_of_key(credential, access), peer, headers)
        self._remember(credential, holder, access)
        return holder

    def _read(self, text: str, asks_clients: bool) -> AccessList:
        """In the thread that reads the file: what reads tokens takes a while to load, and 13 MB."""
        access = read_access(text, asks_clients)
        if access.issuers and self._tokens is None:
            from service.gateway.access.tokens import Tokens

            self._tokens = Tokens()
        return access

    def _holder(self, grant: Grant, peer: str, headers: Mapping[str, str]) -> Holder:
        """Counted on the limits of its key, or of its address (`peer`, past the proxies that are
        trusted) where it has none."""
        if grant.limits is NO_LIMITS:
            return Holder(grant, FREE)
        if grant.id:
            name = f"key {grant.id}"
        else:
            name = f"address {address_of(peer, headers, self._proxies)}"
        held = self._accounts.get(name)
        if held is not None and (held.grant is grant or held.grant.limits == grant.limits):
            return Holder(grant, held.account)
        if len(self._accounts) >= MOST_ACCOUNTS:
            self._accounts.pop(next(iter(self._accounts)))
        account = Account(name, grant.limits, self._store, self._refused)
        holder = self._accounts[name] = Holder(grant, account)
        return holder

    def _remember(self, key: str, holder: Holder, access: AccessList) -> None:
        """Until the next look at the file is due, or one of those that are remembered expires."""
        now = time.monotonic()
        left_s = self._file.due - now
        if left_s <= 0:  # a file system that does not answer
            return
        if now >= self._known_until or self._known_in is not access:
            self._known, self._known_in, self._known_until = {}, access, self._file.due
            asyncio.get_running_loop().call_later(left_s, self._known.clear)
        ends = now + access.keys[holder.grant.id].expires - time.time()
        self._known_until = min(self._known_until, ends)
        self._known[key] = holder


AnyGuard = OpenGuard | Guard


def guard_of(settings: Settings, refused: Callable[[str], None] = unheard) -> AnyGuard:
    """`refused` is told of each caller over its limits, by the error's name. Raises
    InvalidSetting."""
    path = settings.access_file
    if settings.access == "open" and path:
        raise InvalidSetting(
            "SLUICE_ACCESS is open, and SLUICE_ACCESS_FILE is given: leave one out"
        )
    if settings.access == "keys" and not path:
        raise InvalidSetting(
            "SLUICE_ACCESS is keys: SLUICE_ACCESS_FILE is to name the file of them"
        )
    if not path:
        return OpenGuard()
    try:
        asks_clients = bool(settings.tls_client_ca_file)
        store, proxies = _store_of(settings), settings.trusted_proxies
        return Guard(Path(path), store, proxies, asks_clients, refused)
    except ValueError as error:
        raise InvalidSetting(f"SLUICE_ACCESS_FILE: {error}") from None


def _store_of(settings: Settings) -> Store:
    """Raises InvalidSetting, which does not repeat an address that may hold a password."""
    if not settings.limits_store:
        return book_of(settings.workers)
    from service.gateway.access.redis_store import RedisStore  # its library takes a while to load

    fallback = book_of(settings.workers) if settings.limits_away == "open" else None
    try:
        return RedisStore(settings.limits_store, fallback, settings.limits_timeout_s)
    except ValueError as error:
        raise InvalidSetting(f"SLUICE_LIMITS_STORE: {error}") from None


def check_reach(settings: Settings) -> None:
    """Raises InvalidSetting for a gateway that answers anybody, at an address that other machines
    reach, and was not told so in words."""
    if settings.access != "auto" or settings.access_file or is_loopback(settings.http_host):
        return
    raise InvalidSetting(
        f"SLUICE_ACCESS: whoever reaches {settings.http_host} would be answered. Name a file of "
        "keys (SLUICE_ACCESS_FILE; `sluice keys new` makes one), or say SLUICE_ACCESS=open where "
        "the network or a proxy decides who reaches it, or listen on SLUICE_HTTP_HOST=127.0.0.1"
    )


def _of_key(key: str, access: AccessList) -> Grant:
    """Raises Unauthenticated; what became of a key is told to who has it, and to nobody else."""
    key_id = access.digests.get(digest_of(key))
    if key_id is None or not is_of(key, key_id):
        raise Unauthenticated("The key is not known here")
    return _in_force(key_id, access.keys[key_id])


def _of_certificate(certificate: bytes, access: AccessList) -> Grant:
    """What its holder may, or whoever has none, or none that a key goes by. Raises
    Unauthenticated."""
    names: tuple[str, ...] = ()
    if certificate and access.certificates:
        from service.gateway.tls.names import read_certificate  # for those who have certificates

        names, expires = read_certificate(certificate)
        for name in names:
            if name in access.certificates:
                if time.time() >= expires:  # while the connection was open
                    raise Unauthenticated("The client's certificate has expired")
                key_id = access.certificates[name]
                return _in_force(key_id, access.keys[key_id])
    if access.anonymous is None:
        shown = f", or a certificate; no key goes by {', '.join(names[:MOST_NAMES])}"
        message = f"A key is needed here: {_HOW}{shown if names else ''}"
        raise Unauthenticated(message, was_shown=False)
    return access.anonymous


def _in_force(key_id: str, entry: KeyEntry) -> Grant:
    """Raises Unauthenticated."""
    if entry.revoked:
        raise Unauthenticated(f'The key "{key_id}" has been revoked')
    if time.time() >= entry.expires:
        raise Unauthenticated(f'The key "{key_id}" has expired at {utc(entry.expires)}')
    return entry.grant

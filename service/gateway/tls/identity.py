"""A certificate and its key, as files hold them: read, checked, and read again when they change."""

import logging
import math
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from service.gateway.file_state import state_of
from service.gateway.variables import InvalidSetting

Content = TypeVar("Content")
Made = TypeVar("Made")

log = logging.getLogger(__name__)


class Source(NamedTuple):
    """A file, and the setting that names it."""

    setting: str
    path: str

    def read(self) -> bytes:
        """Raises InvalidSetting."""
        try:
            return Path(self.path).read_bytes()
        except OSError as error:
            raise InvalidSetting(
                f"{self.setting}: {self.path} cannot be read ({error.strerror})"
            ) from None

    def checked(self, check: Callable[[Content], Made], content: Content) -> Made:
        """Its result. Raises InvalidSetting where it raises ValueError."""
        try:
            return check(content)
        except ValueError as error:
            raise self.bad(str(error)) from None

    def bad(self, why: str) -> InvalidSetting:
        return InvalidSetting(f"{self.setting}: {self.path} {why}")


class Identity(NamedTuple):
    """PEM: the chain, its key, and the authorities that are trusted, b"" for none. `expires` is of
    the chain's first certificate, seconds since 1970; never, where there is none."""

    chain: bytes
    key: bytes
    authorities: bytes
    expires: float


class Files(NamedTuple):
    """Where an identity is read from: a chain and its key, authorities, or both; what is not there
    has the path ""."""

    chain: Source
    key: Source
    authorities: Source

    def read(self) -> Identity:
        """Raises InvalidSetting for a file that cannot be read or used, a key that is another
        certificate's, and a certificate that is not valid now."""
        from service.gateway.tls import pem  # its library is for those who have certificates

        chain, key, authorities = (source.read() if source.path else b"" for source in self)
        if authorities:
            self.authorities.checked(pem.first_certificate, authorities)
        if not self.chain.path:
            return Identity(chain, key, authorities, math.inf)
        first = self.chain.checked(pem.first_certificate, chain)
        if self.key.checked(pem.public_key_of, key) != first.public_key:
            raise self.key.bad(f"is not the key of the certificate in {self.chain.path}")
        self.chain.checked(pem.check_dates, first)
        return Identity(chain, key, authorities, first.expires)

    def named(self) -> str:
        return ", ".join(source.path for source in self if source.path)

    def state(self) -> tuple[tuple[int, ...], ...]:
        return tuple(state_of(source.path) for source in self)


class Kept(Generic[Made]):
    """`current` is what `make` made of the files when they last could be used; `problem` is what
    is wrong with them now, "" for nothing. Raises InvalidSetting where they cannot be used at
    first, as `make` may."""

    def __init__(self, files: Files, make: Callable[[Identity], Made]) -> None:
        self._files, self._make = files, make
        self.problem = self._suspected = ""
        self._seen = files.state()
        self.current = make(files.read())

    def look(self) -> None:
        """Read the files if they have changed.

        Two files are seldom replaced at once: what does not fit is a problem if it does not at the
        next look either.
        """
        state = self._files.state()
        if state == self._seen and not self._suspected:
            return
        self._seen = state
        try:
            self.current = self._make(self._files.read())
        except InvalidSetting as error:
            self._suspect(str(error))
            return
        self.problem = self._suspected = ""
        log.info("%s: what changed is in force", self._files.named())

    def _suspect(self, problem: str) -> None:
        if problem == self._suspected != self.problem:
            self.problem = problem
            log.error("%s; what was there before stays in force", problem)
        self._suspected = problem


def server_context(files: Files, identity: Identity) -> ssl.SSLContext:
    """Of TLS 1.2 and later and HTTP/1.1. Where there are authorities, clients must show a
    certificate of theirs. Raises InvalidSetting for what OpenSSL refuses, and where the files are
    others by now."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(files.chain.path, files.key.path)  # it takes no bytes
    except (ssl.SSLError, OSError) as error:
        raise files.chain.bad(f"is refused by OpenSSL ({error})") from None
    if (files.chain.read(), files.key.read()) != (identity.chain, identity.key):
        raise files.chain.bad("changed while it was read")
    if identity.authorities:
        text = identity.authorities.decode("ascii", "ignore")  # names in comments are in any script
        try:
            context.load_verify_locations(cadata=text)
        except ssl.SSLError as error:
            raise files.authorities.bad(f"is refused by OpenSSL ({error})") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context

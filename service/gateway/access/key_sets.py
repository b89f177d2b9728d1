"""The public keys of those who issue tokens (JWKS, RFC 7517): from a file or over HTTPS, kept, and
fetched again in a thread."""

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import jwt

FETCH_TIMEOUT_S = 5.0
MOST_BYTES = 1 << 20
FRESH_S = {True: 600.0, False: 5.0}  # of what is remote, and of a file
AGAIN_S = 10.0  # no sooner is it fetched again, whatever keys the tokens that come name
PATIENCE_S = 3.0  # of a token whose key is not known yet

log = logging.getLogger(__name__)


class KeySet:
    """Of one source: a path, or an address. What was fetched last stays in force when it cannot be
    fetched; `problem` says why it cannot. For one event loop."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._is_remote = source.startswith(("http://", "https://"))
        self._keys: dict[str, Mapping[str, Any]] = {}
        self._tried = self._fetched = -1e9
        self._fetching: asyncio.Task[None] | None = None
        self.version = 0  # another one whenever the keys are others
        self.problem = ""

    async def find(self, kid: str, algorithm: str) -> jwt.PyJWK | None:
        """The key of that id, for that algorithm."""
        if kid not in self._keys and self._may_fetch(AGAIN_S if self._is_remote else 1.0):
            await asyncio.wait({self._fetch()}, timeout=PATIENCE_S)
        else:
            self.look()
        described = self._keys.get(kid)
        if described is None or described.get("alg", algorithm) != algorithm:
            return None
        try:
            return jwt.PyJWK(dict(described), algorithm)
        except jwt.PyJWTError:  # a key of another kind
            return None

    def look(self) -> None:
        """Begin to fetch it again where it is old."""
        if time.monotonic() - self._fetched > FRESH_S[self._is_remote] and self._may_fetch(AGAIN_S):
            self._fetch()

    def _may_fetch(self, pause_s: float) -> bool:
        return self._fetching is not None or time.monotonic() - self._tried > pause_s

    def _fetch(self) -> asyncio.Task[None]:
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch_and_keep())
        return self._fetching

    async def _fetch_and_keep(self) -> None:
        self._tried = time.monotonic()
        try:
            keys = await asyncio.to_thread(self._fetched_keys)
        except Exception as error:  # whatever libraries make of an address, or of a document
            why = str(error) or type(error).__name__
            problem = f"the keys of {self._source} cannot be had ({why})"
            if problem != self.problem:
                log.error("%s; those before stay in force", problem)
            self.problem = problem
        else:
            if keys != self._keys:
                self._keys, self.version = keys, self.version + 1
            self._fetched, self.problem = time.monotonic(), ""
        finally:
            self._fetching = None

    def _fetched_keys(self) -> dict[str, Mapping[str, Any]]:
        return read_keys(_get(self._source) if self._is_remote else Path(self._source).read_text())


def read_keys(text: str) -> dict[str, Mapping[str, Any]]:
    """Those for signatures, by their ids; "" is the id of one without. Raises ValueError.

    >>> read_keys('{"keys": [{"kty": "oct", "kid": "a", "k": ""}, {"kty": "EC", "kid": "b"}]}')
    {'b': {'kty': 'EC', 'kid': 'b'}}
    """
    document = json.loads(text)
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise ValueError("it is no JSON Web Key Set: it has no list `keys`")
    return {
        str(key.get("kid", "")): key
        for key in keys
        if key.get("kty") in ("RSA", "EC", "OKP") and key.get("use", "sig") == "sig"
    }


def _get(address: str) -> str:
    with (
        httpx.Client(timeout=FETCH_TIMEOUT_S) as http,
        http.stream("GET", address) as response,
    ):
        response.raise_for_status()
        pieces, size = [], 0
        for piece in response.iter_bytes():
            size += len(piece)
            if size > MOST_BYTES:
                raise ValueError(f"over {MOST_BYTES} bytes")
            pieces.append(piece)
    return b"".join(pieces).decode()

"""API keys: how they are made, and what is kept of them.

A key is `sluice_ID_` and 256 random bits in hexadecimal. What is kept is its SHA-256: a slow hash
makes guessing dear where people choose the secret; 2**256 cannot be guessed at any speed, and a
slow hash would cost each request what it is to save.
"""

import hashlib
import hmac
import re
import secrets

PREFIX = "sluice_"
ID_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,63}")
ID_IN_WORDS = "of letters, digits, '-' and '.', up to 64 of them"
DIGEST_FORM = re.compile(r"[0-9a-f]{64}")
_KEY_FORM = re.compile(rf"{PREFIX}({ID_FORM.pattern})_[0-9a-f]{{64}}")
_SECRET_BYTES = 32


def new_key(key_id: str) -> str:
    """A key that nobody has."""
    return f"{PREFIX}{key_id}_{secrets.token_hex(_SECRET_BYTES)}"


def id_of(key: str) -> str | None:
    """The id in a key; None of what has not the form of one."""
    found = _KEY_FORM.fullmatch(key)
    return found[1] if found else None


def digest_of(key: str) -> str:
    """What is kept of it: the SHA-256 in hexadecimal."""
    return hashlib.sha256(key.encode()).hexdigest()


def is_key(key: str, digest: str) -> bool:
    """Whether it is the one of the digest; takes as long whatever it is."""
    return hmac.compare_digest(digest_of(key), digest)

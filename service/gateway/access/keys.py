"""API keys: how they are made, and what is kept of them.

A key is `sluice_ID_` and 256 random bits in hexadecimal. What is kept is its SHA-256: a slow hash
makes guessing dear where people choose the secret; 2**256 cannot be guessed at any speed, and a
slow hash would cost each request what it is to save.

A key is looked up by that hash. How long a look-up takes may tell something of the hash of what was
shown, whose sender knows it; nobody can make a key whose hash is near another's, and no time tells
of a key's own characters.

A key that was good is known by itself until it is time to look at the file again, a second at the
most (guard.py): the way to a SHA-256, through OpenSSL, costs as much as all else that lets one in.
It is known to a dict, which compares characters only where Python's hashes of both texts are
equal, all 64 bits: SipHash, by a secret of the process. So a guess that is right but for its last
character is compared no further than any other: not at all, unless it is one of 2**64; nor would
who knew that secret (PYTHONHASHSEED) know the hash of a key that he does not have. That one key
takes longer than another tells that it was not shown a moment ago, which who has it knows, or is
not good, as the answer does. And in memory keys are for about as long anyway: in the headers of
requests until these have been logged, and behind them, as nobody wipes what is let go.
"""

import hashlib
import re
import secrets

PREFIX = "sluice_"
ID_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,63}")
ID_IN_WORDS = "of letters, digits, '-' and '.', up to 64 of them"
DIGEST_FORM = re.compile(r"[0-9a-f]{64}")
_SECRET_BYTES = 32


def new_key(key_id: str) -> str:
    """A key that nobody has."""
    return f"{PREFIX}{key_id}_{secrets.token_hex(_SECRET_BYTES)}"


def is_of(key: str, key_id: str) -> bool:
    """Whether it has the form of a key of that id, and so was not thought up by somebody."""
    return key.startswith(f"{PREFIX}{key_id}_") and len(key) == len(PREFIX) + len(key_id) + 1 + (
        2 * _SECRET_BYTES
    )


def digest_of(key: str) -> str:
    """What is kept of it: the SHA-256 in hexadecimal."""
    return hashlib.sha256(key.encode()).hexdigest()

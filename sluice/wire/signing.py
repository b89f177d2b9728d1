"""Who signs versions, and whose are served: keys of elliptic curves, in PEM, by `cryptography`.

What they sign is `signed_files.py`'s.
"""

import hashlib
import os
import re
import time
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from sluice.wire.signed_files import (
    SIGNED_FILE,
    NotAsSigned,
    SignedFile,
    Times,
    bundle_of,
    compare,
    pre_authenticated,
    read_bundle,
    read_statement,
    statement_of,
    times_of,
)
from sluice.wire.versions import model_name_fault

_HASHES: dict[type[ec.EllipticCurve], hashes.HashAlgorithm] = {
    ec.SECP256R1: hashes.SHA256(),
    ec.SECP384R1: hashes.SHA384(),
    ec.SECP521R1: hashes.SHA512(),
}
# A file system tells no two moments apart that are closer than a tick of its clock, 10 ms at most.
_TICK_S = 0.02
_PUBLIC_KEY = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.S)
_HOW_TO_MAKE_ONE = "docs/security.md tells how keys are made"


class BadKey(Exception):
    """A file of keys that cannot be used: which, why, and what to do."""


class SigningKey:
    """Signs versions with the private key in `file`: PEM, unencrypted, of P-256, P-384 or P-521.

    Raises BadKey.

    >>> SigningKey(Path("no-such.pem"))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    sluice.wire.signing.BadKey: no-such.pem cannot be read: No such file or directory...
    """

    def __init__(self, file: Path) -> None:
        try:
            key = load_pem_private_key(_read(file), password=None)
        except TypeError:
            raise BadKey(
                f"{file} is encrypted, expected a key that is not: openssl pkey -in {file} gives it"
            ) from None
        except (ValueError, UnsupportedAlgorithm):
            raise BadKey(f"{file} holds no private key in PEM; {_HOW_TO_MAKE_ONE}") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or type(key.curve) not in _HASHES:
            raise BadKey(f"{file}: expected a key of P-256, P-384 or P-521; {_HOW_TO_MAKE_ONE}")
        self._key = key
        self.id = _key_id(key.public_key())

    def sign(self, version: Path, model: str, number: int) -> None:
        """Write `model.sig`, which holds every file that is in `version` now, as `model` `number`.

        Raises NotAsSigned for links and the like, which cannot be signed; OSError.
        """
        payload = statement_of(version, model, number)
        hash_ = ec.ECDSA(_HASHES[type(self._key.curve)])
        signed = _lower(self._key.sign(pre_authenticated(payload), hash_), self._key.curve)
        # Beside the version: whoever looks meanwhile would take it for one of its files.
        beside = version.with_name(f".signing-{version.name}-{os.getpid()}")
        try:
            with beside.open("wb") as file:
                file.write(bundle_of(self.id, payload, signed))
                file.flush()
                os.fsync(file.fileno())
            beside.replace(version / SIGNED_FILE)
        except OSError:
            beside.unlink(missing_ok=True)
            raise


class TrustedKeys:
    """The public keys in `file`, PEM, one after the other; it is read anew at each look, so that
    keys can be added and taken away. Raises BadKey where none is in there.

    >>> TrustedKeys(Path("no-such.pem"))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    sluice.wire.signing.BadKey: no-such.pem cannot be read: No such file or directory...
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._keys()

    def check(self, version: Path, model: str, number: int) -> str:
        """Whether one of them has signed `version`, all of it, as `model` `number`: its id.

        Raises NotAsSigned, which says what is not as it should be; BadKey; OSError.
        """
        if fault := model_name_fault(model):
            raise NotAsSigned(f"{model!r} is no name of a model: {fault}")
        key_id, said, files = self._signed(version)
        if said != f"{model}/{number}":
            raise NotAsSigned(
                f"{version} was signed as {said}, and is to be served as {model}/{number}"
            )
        compare(version, files)
        return key_id

    def check_to_load(self, version: Path, model: str, number: int) -> "Checked":
        """`check`, for who reads the files after it, and asks then whether they were the same."""
        times = times_of(version)
        time.sleep(_TICK_S)  # what is written after the look has another time than before it
        return Checked(self.check(version, model, number), version, times)

    def _signed(self, version: Path) -> tuple[str, str, dict[str, SignedFile]]:
        """By which key, as which version, which files."""
        key_id, payload, signed = read_bundle(version)
        key = self._keys().get(key_id)
        if key is None:
            raise NotAsSigned(f"{version} was signed with a key that {self._file} does not hold")
        try:
            key.verify(signed, pre_authenticated(payload), ec.ECDSA(_HASHES[type(key.curve)]))
            if signed != _lower(signed, key.curve):
                raise InvalidSignature
        except InvalidSignature:
            raise NotAsSigned(f"{version / SIGNED_FILE} is not what the key has signed") from None
        try:
            return key_id, *read_statement(payload)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            raise NotAsSigned(f"{version / SIGNED_FILE} says nothing of a model's files") from None

    def _keys(self) -> dict[str, ec.EllipticCurvePublicKey]:
        text = _read(self._file)
        if b"PRIVATE KEY" in text:
            raise BadKey(f"{self._file} holds a private key, which is for who signs alone")
        keys = {}
        for block in _PUBLIC_KEY.findall(text):
            try:
                key = load_pem_public_key(block)
            except (ValueError, UnsupportedAlgorithm):
                raise BadKey(f"{self._file}: one of its public keys cannot be read") from None
            if not isinstance(key, ec.EllipticCurvePublicKey) or type(key.curve) not in _HASHES:
                raise BadKey(f"{self._file}: expected keys of P-256, P-384 or P-521 alone")
            keys[_key_id(key)] = key
        if not keys:
            raise BadKey(f"{self._file} holds no public key in PEM; {_HOW_TO_MAKE_ONE}")
        return keys


class Checked(NamedTuple):
    """A version that was as signed when it was looked at. key_id: by whose key."""

    key_id: str
    version: Path
    times: Times

    def check_unchanged(self) -> None:
        """Raises NotAsSigned where a file was written since."""
        if times_of(self.version) != self.times:
            raise NotAsSigned(f"{self.version} was written to while it was loaded")


def _lower(signed: bytes, curve: ec.EllipticCurve) -> bytes:
    """The one of ECDSA's two signatures that is written here: with each there is another as good,
    that anybody can make of it."""
    r, s = decode_dss_signature(signed)
    return encode_dss_signature(r, min(s, curve.group_order - s))


def _key_id(key: ec.EllipticCurvePublicKey) -> str:
    """As Model Signing has it."""
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(pem).hexdigest()


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise BadKey(f"{file} cannot be read: {error.strerror}; {_HOW_TO_MAKE_ONE}") from None

"""What is in PEM files. By `cryptography`: Python's ssl loads a certificate without telling when it
expires, and slim images have no openssl command. Loaded where there is a certificate, and only
there."""

import time
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from service.gateway.dates import utc


class Certificate(NamedTuple):
    """Times in seconds since 1970, the key as DER."""

    begins: float
    expires: float
    public_key: bytes


def first_certificate(content: bytes) -> Certificate:
    """Of a file that holds one or more. Raises ValueError, whose message follows a file's name."""
    try:
        found = x509.load_pem_x509_certificates(content)[0]
        return Certificate(
            found.not_valid_before_utc.timestamp(),
            found.not_valid_after_utc.timestamp(),
            _der(found.public_key()),
        )
    except UnsupportedAlgorithm as error:
        raise _of_a_strange_kind(error) from None
    except (ValueError, x509.InvalidVersion):
        raise ValueError("holds no certificate in PEM form") from None


def public_key_of(private_key: bytes) -> bytes:
    """As DER. Raises ValueError, as above."""
    try:
        return _der(load_pem_private_key(private_key, password=None).public_key())
    except TypeError:
        raise ValueError("is encrypted: give the key without a passphrase") from None
    except UnsupportedAlgorithm as error:
        raise _of_a_strange_kind(error) from None
    except ValueError:
        raise ValueError("holds no private key in PEM form") from None


def check_dates(certificate: Certificate) -> None:
    """Raises ValueError, as above, for one that is not valid now."""
    now = time.time()
    if now >= certificate.expires:
        raise ValueError(f"has expired at {utc(certificate.expires)}")
    if now < certificate.begins:
        raise ValueError(f"is not valid before {utc(certificate.begins)}")


def _of_a_strange_kind(error: UnsupportedAlgorithm) -> ValueError:
    return ValueError(f"has a key of a kind that is not taken here ({error})")


def _der(public_key: Any) -> bytes:
    encoded: bytes = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded

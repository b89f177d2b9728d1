"""The names in a client's certificate, each with its kind, as OpenSSL writes them:

    DNS:phone.acme.example   URI:spiffe://acme/phone   email:ops@acme.example   IP:10.1.2.3
    subject:CN=phone,O=Acme  (RFC 4514: from the narrowest to the widest)

The kind is part of the name: a common name is no host, and a mail address no account. By
`cryptography`, as pem.py, and loaded where there are certificates alone.
"""

import ipaddress
import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

from cryptography import x509


class ClientCertificate(NamedTuple):
    """`expires` in seconds since 1970."""

    names: tuple[str, ...]
    expires: float


# By kind, how equal names become the same text. Each raises ValueError for what is none.
_FORMS: dict[str, Callable[[str], str]] = {
    "subject": lambda text: x509.Name.from_rfc4514_string(text).rfc4514_string(),
    "DNS": str.lower,
    "URI": str,
    "email": str,
    "IP": lambda text: str(ipaddress.ip_address(text)),
}
KINDS = tuple(_FORMS)
_KIND_OF: dict[type[x509.GeneralName], str] = {
    x509.DNSName: "DNS",
    x509.UniformResourceIdentifier: "URI",
    x509.RFC822Name: "email",
    x509.IPAddress: "IP",
}
# What `cryptography` raises for a certificate that it does not take.
_UNREADABLE = (
    *(ValueError, x509.DuplicateExtension, x509.InvalidVersion),
    x509.UnsupportedGeneralNameType,
)


def canonical(name: str) -> str:
    """The one way to write a name. Raises ValueError for what is none.

    >>> canonical("DNS:Phone.Acme.example"), canonical("IP:::0001")
    ('DNS:phone.acme.example', 'IP:::1')
    """
    kind, _, text = name.partition(":")
    if kind not in _FORMS or not text:
        raise ValueError(f"{name!r} has no kind that there is, or no text")
    return f"{kind}:{_FORMS[kind](text)}"


@lru_cache(1024)
def read_certificate(pem: bytes) -> ClientCertificate:
    """Of one that TLS has verified. OpenSSL takes some that a stricter reader does not: they have
    no names."""
    try:
        found = x509.load_pem_x509_certificate(pem)
        return ClientCertificate(tuple(_names(found)), found.not_valid_after_utc.timestamp())
    except _UNREADABLE:
        return ClientCertificate((), math.inf)


def _names(certificate: x509.Certificate) -> Iterator[str]:
    if certificate.subject.rdns:
        yield f"subject:{certificate.subject.rfc4514_string()}"
    try:
        others = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return
    for other in others:
        kind = _KIND_OF.get(type(other))
        if kind is not None:
            yield canonical(f"{kind}:{other.value}")

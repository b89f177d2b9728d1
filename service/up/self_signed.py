"""A certificate for a try of HTTPS, signed by itself. By `cryptography`, which the gateway has for
its own: an openssl command is not everywhere."""

import ipaddress
import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

VALID = timedelta(days=30)
SKEW = timedelta(hours=1)  # that a client's clock may be behind
LOCAL = ("localhost", "127.0.0.1", "::1")


def write_self_signed(folder: Path, host: str) -> tuple[Path, Path]:
    """`certificate.pem` and `key.pem` in the folder, for this machine's names and `host`. Whoever
    trusts the certificate trusts it and no other: it signs none."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sluice, for a try")])
    names = [_name(each) for each in sorted({*LOCAL, socket.gethostname(), host})]
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + VALID)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    written = folder / "certificate.pem", folder / "key.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    written[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    with open(os.open(written[1], os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:  # noqa: PTH123
        file.write(private)
    return written


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)

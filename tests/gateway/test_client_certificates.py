"""The names in clients' certificates, and what the guard makes of them."""

import asyncio
import datetime
import ipaddress
import ssl

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from service.gateway.access.guard import guard_of
from service.gateway.errors import Unauthenticated
from service.gateway.settings import Settings
from service.gateway.tls.names import canonical, read_certificate

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


def certificate(subject, *names, extension=None):
    """PEM, signed by itself: whose it is, is for TLS to say."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name.from_rfc4514_string(subject)
    building = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW - DAY, NOW + DAY)
    extension = extension or (names and x509.SubjectAlternativeName(names))
    if extension:
        building = building.add_extension(extension, critical=False)
    return building.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_each_name_has_its_kind():
    shown = certificate(
        "CN=phone,O=Acme",
        x509.DNSName("Phone.acme.example"),
        x509.UniformResourceIdentifier("spiffe://acme/phone"),
        x509.RFC822Name("ops@acme.example"),
        x509.IPAddress(ipaddress.ip_address("10.1.2.3")),
        x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
    )
    read = read_certificate(shown)
    assert read.names == (
        "subject:CN=phone,O=Acme",
        "DNS:phone.acme.example",
        "URI:spiffe://acme/phone",
        "email:ops@acme.example",
        "IP:10.1.2.3",
    )
    assert all(canonical(name) == name for name in read.names)
    assert read.expires == int((NOW + DAY).timestamp())
    assert read_certificate(certificate("CN=phone.acme.example")).names == (
        "subject:CN=phone.acme.example",
    )


def test_what_cannot_be_read_has_no_names():
    assert read_certificate(b"?").names == ()


def test_what_openssl_alone_can_read_has_no_names():
    of_a_strange_kind = x509.UnrecognizedExtension(
        x509.ExtensionOID.SUBJECT_ALTERNATIVE_NAME, bytes.fromhex("3004a5028100")
    )  # an ediPartyName
    assert read_certificate(certificate("CN=phone", extension=of_a_strange_kind)).names == ()
    der = ssl.PEM_cert_to_DER_cert(certificate("CN=phone").decode())
    of_version_2 = der.replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020101"))
    assert read_certificate(ssl.DER_cert_to_PEM_cert(of_version_2).encode()).names == ()


@pytest.fixture
def guard(tmp_path):
    path = tmp_path / "access.toml"
    path.write_text('[keys.phone]\ncertificates = ["DNS:phone"]\nmodels = ["m"]')
    return guard_of(Settings(access_file=str(path), tls_client_ca_file="asked.pem"))


def test_one_that_expires_while_its_connection_is_open_is_refused(guard):
    authority = trustme.CA()
    good = authority.issue_cert("phone").cert_chain_pems[0].bytes()
    assert asyncio.run(guard.identify({}, good, "-")).grant.id == "phone"
    late = authority.issue_cert("phone", not_before=NOW - 2 * DAY, not_after=NOW - DAY)
    with pytest.raises(Unauthenticated, match="The client's certificate has expired"):
        asyncio.run(guard.identify({}, late.cert_chain_pems[0].bytes(), "-"))


def test_a_name_of_another_kind_is_another_name(guard):
    for shown in (certificate("CN=phone"), certificate("CN=a", x509.RFC822Name("phone"))):
        with pytest.raises(Unauthenticated, match="no key goes by subject:CN="):
            asyncio.run(guard.identify({}, shown, "-"))


def test_what_is_for_certificates_alone_has_no_key(guard):
    with pytest.raises(Unauthenticated, match="The key is not known here"):
        shown = {"x-api-key": "sluice_phone_" + "0" * 64}
        asyncio.run(guard.identify(shown, b"", "-"))

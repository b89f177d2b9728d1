"""Certificates as files, of authorities of the tests' own."""

import datetime
import ssl
from pathlib import Path

import trustme

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
EXPIRED = {"not_before": NOW - 9 * DAY, "not_after": NOW - DAY}


class Folder:
    """Certificates as files: `server.pem`, `server.key`, and `ca.pem` of `authority`."""

    def __init__(self, path: Path) -> None:
        self.path, self.authority = path, trustme.CA()
        self.authority.cert_pem.write_to_path(self["ca.pem"])
        trustme.CA().cert_pem.write_to_path(self["foreign.pem"])
        self.renew()

    def __getitem__(self, name: str) -> str:
        return str(self.path / name)

    def renew(self, **dates) -> None:
        """Another certificate of the server's, each file replaced at once."""
        issued = self.authority.issue_cert("localhost", "127.0.0.1", **dates)
        self.replace("server.key", issued.private_key_pem.bytes())
        self.replace("server.pem", b"".join(each.bytes() for each in issued.cert_chain_pems))

    def replace(self, name: str, content: bytes) -> None:
        beside = self.path / f"{name}.new"
        beside.write_bytes(content)
        beside.replace(self.path / name)

    def settings(self, client_ca: str = "") -> dict[str, str]:
        return {
            "tls_certificate_file": self["server.pem"],
            "tls_key_file": self["server.key"],
            "tls_client_ca_file": client_ca,
        }

    def client_context(self, certificate: trustme.LeafCert | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self["ca.pem"])
        if certificate is not None:
            certificate.configure_cert(context)
        return context

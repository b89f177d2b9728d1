"""What the gateway shows to those who connect."""

import ssl
from typing import NamedTuple

from service.gateway.settings import Settings
from service.gateway.tls.identity import Files, Identity, Kept, Source, server_context
from service.gateway.variables import InvalidSetting, environment_variable


class Shown(NamedTuple):
    """The same for both: `context` is HTTP's, gRPC takes the identity itself."""

    identity: Identity
    context: ssl.SSLContext


ServerTls = Kept[Shown]


def server_tls(settings: Settings) -> ServerTls | None:
    """None where no certificate is given. Raises InvalidSetting."""
    chain, key, authorities = (
        Source(environment_variable(name), getattr(settings, name))
        for name in ("tls_certificate_file", "tls_key_file", "tls_client_ca_file")
    )
    if not (chain.path or key.path or authorities.path):
        return None
    for missing in (chain, key):
        if not missing.path:
            raise InvalidSetting(
                f"{missing.setting}: TLS takes a certificate and its key, and this is not given"
            )
    files = Files(chain, key, authorities)
    return Kept(files, lambda identity: Shown(identity, server_context(files, identity)))

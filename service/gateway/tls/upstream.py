"""How the gateway reaches the model servers: over TLS or not, and as whom."""

from service.gateway.settings import Settings
from service.gateway.tls.identity import Files, Identity, Kept, Source
from service.gateway.variables import InvalidSetting, environment_variable

UpstreamTls = Kept[Identity]


def upstream_tls(settings: Settings) -> UpstreamTls | None:
    """None where the model servers speak plain gRPC. Raises InvalidSetting."""
    chain, key, authorities = sources = [
        Source(environment_variable(name), getattr(settings, name))
        for name in (
            "tls_model_server_certificate_file",
            "tls_model_server_key_file",
            "tls_model_server_ca_file",
        )
    ]
    if settings.tls_model_server == "off":
        for source in sources:
            if source.path:
                raise InvalidSetting(f"{source.setting}: SLUICE_TLS_MODEL_SERVER is not on")
        return None
    if bool(chain.path) != bool(key.path):
        missing = key if chain.path else chain
        raise InvalidSetting(f"{missing.setting}: a certificate and its key go together")
    return Kept(Files(chain, key, authorities), lambda identity: identity)

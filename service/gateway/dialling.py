"""How a channel to a model server is opened."""

import json

import grpc

from service.gateway.tls.identity import Identity
from service.gateway.tls.upstream import UpstreamTls
from sluice.wire.channels import CHANNEL_OPTIONS

SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],  # client-side health checks need this policy
    "healthCheckConfig": {"serviceName": ""},
}
OPTIONS: list[tuple[str, int | str]] = [
    *CHANNEL_OPTIONS,
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    # An http_proxy in the environment is for the world outside; gRPC would take it for 127.0.0.1.
    ("grpc.enable_http_proxy", 0),
    # A connection that is cut without a word is found out while calls wait for it.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.use_local_subchannel_pool", 1),
]


class Dialling:
    """How a channel is opened: over TLS where `tls` is given, to a server that proves to be `name`,
    or the host in its address where that is ""."""

    def __init__(self, tls: UpstreamTls | None = None, name: str = "") -> None:
        self.tls, self._name = tls, name

    @property
    def identity(self) -> Identity | None:
        """What channels are opened with now."""
        return self.tls.current if self.tls else None

    def channel(self, target: str, host: str) -> grpc.aio.Channel:
        """`target` is an IP address, in gRPC's words, of the host."""
        identity = self.identity
        if identity is None:
            return grpc.aio.insecure_channel(target, OPTIONS)
        credentials = grpc.ssl_channel_credentials(
            identity.authorities or None, identity.key or None, identity.chain or None
        )
        proves = [("grpc.ssl_target_name_override", self._name or host)]
        return grpc.aio.secure_channel(target, credentials, [*OPTIONS, *proves])


def host_of(address: str) -> str:
    """
    >>> host_of("[::1]:8500"), host_of("serving:8500"), host_of("unix:/run/serving")
    ('::1', 'serving', 'localhost')
    """
    if address.startswith("unix:"):
        return "localhost"
    return address.rpartition(":")[0].strip("[]")

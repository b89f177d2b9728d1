"""Whether there is what the settings name, and ask for: files, packages, keys, descriptors."""

from service.gateway.access.guard import check_reach, guard_of
from service.gateway.capturing import check_capture
from service.gateway.descriptors import check_descriptors
from service.gateway.settings import Settings
from service.gateway.tls.server import server_tls
from service.gateway.tls.upstream import upstream_tls
from service.gateway.tracing.tracers import check_tracing


def check_settings(settings: Settings) -> None:
    """Before a worker starts, where each would fail by itself. Raises InvalidSetting."""
    check_reach(settings)
    check_descriptors(settings)
    guard_of(settings)
    server_tls(settings)
    upstream_tls(settings)
    check_capture(settings)
    check_tracing(settings)

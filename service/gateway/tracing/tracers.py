"""Which tracer there is: OpenTelemetry's is loaded where it is asked for, and only there."""

import os
from typing import TYPE_CHECKING

from service.gateway.settings import Settings
from service.gateway.tracing.trace import NO_TRACER, Tracer
from service.gateway.variables import InvalidSetting

if TYPE_CHECKING:
    from service.gateway.tracing.otel import OtelTracer

PROTOCOL = "grpc"  # the one whose exporter the extra brings
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


def check_tracing(settings: Settings) -> None:
    """Raises InvalidSetting where traces are asked for and cannot be had."""
    if settings.tracing == "on":
        _load()


def tracer_of(settings: Settings) -> Tracer:
    """In the process that is to send the traces. Raises InvalidSetting."""
    if settings.tracing == "off":
        return NO_TRACER
    return _load()("https" if settings.tls_certificate_file else "http")


def _load() -> "type[OtelTracer]":
    for variable in _PROTOCOLS:
        if os.environ.get(variable, PROTOCOL) != PROTOCOL:
            raise InvalidSetting(f"{variable}: expected {PROTOCOL}, got {os.environ[variable]!r}")
    try:
        from service.gateway.tracing.otel import OtelTracer
    except ModuleNotFoundError as error:
        raise InvalidSetting(
            f"SLUICE_TRACING is on, and there is no module {error.name}: "
            "pip install 'sluice[gateway,otel]'"
        ) from None
    return OtelTracer

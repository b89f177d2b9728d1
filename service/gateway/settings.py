"""Every setting of the gateway, once: its name, type, default, range and meaning."""

import math
import os
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any

from service.gateway.setting_values import (
    ADDRESSES,
    ANY_TEXT,
    HOST,
    MOST_PORTS,
    ORIGINS,
    Form,
    parse,
)
from service.gateway.variables import InvalidSetting, check_known, environment_variable

MOST_PROCESSES = 1024  # and threads
DAY_S = 86_400.0


def _setting(
    default: Any,
    meaning: str,
    *,
    least: float = 1,
    most: float = math.inf,
    choices: tuple[str, ...] = (),
    form: Form = ANY_TEXT,
) -> Any:
    """A number is from `least` to `most`; a text is one of `choices`, where there are any, or has
    the `form`. `range_of` words it."""
    bounds = {"least": least, "most": most, "choices": choices, "form": form}
    return field(default=default, metadata={"meaning": meaning, **bounds})


@dataclass(frozen=True)
class Settings:
    """Read with `Settings.from_environment()`; the variable of `http_port` is SLUICE_HTTP_PORT."""

    model_server: str = _setting(
        "127.0.0.1:8500",
        "HOST:PORT of the model server's gRPC port; several, separated by commas, and several "
        "addresses of one name, share the calls",
        form=ADDRESSES,
    )
    tls_model_server: str = _setting(
        "off", "whether the model servers are reached over TLS", choices=("on", "off")
    )
    tls_model_server_ca_file: str = _setting(
        "",
        "PEM file of the authorities whose certificates the model servers have; without it those "
        "that gRPC comes with",
    )
    tls_model_server_certificate_file: str = _setting(
        "", "PEM file of the certificate that the gateway shows the model servers"
    )
    tls_model_server_key_file: str = _setting("", "PEM file of that certificate's key")
    tls_model_server_name: str = _setting(
        "", "the name in the model servers' certificates, where SLUICE_MODEL_SERVER has another"
    )
    models: str = _setting(
        "",
        "names of the served models, separated by commas: what /readyz waits for and what is "
        "listed (a model server's gRPC API cannot list its models)",
    )
    model_config_file: str = _setting(
        "",
        "the model server's own models.config: another way to name the models; read again at each "
        "use",
    )
    ready_when: str = _setting(
        "any",
        "any: ready when one of the named models is AVAILABLE; all: when each is",
        choices=("any", "all"),
    )
    access: str = _setting(
        "auto",
        "open: whoever reaches the gateway is answered; keys: those that SLUICE_ACCESS_FILE knows; "
        "auto: keys where that is given, else open on the loopback address, and refused on any "
        "other",
        choices=("auto", "open", "keys"),
    )
    access_file: str = _setting(
        "",
        "the file of keys, of issuers of tokens, and what each may ask; read again when it changes",
    )
    trusted_proxies: int = _setting(
        0,
        "proxies before the gateway that write X-Forwarded-For: callers without a key are told "
        "apart by the address that the outermost of them saw",
        least=0,
        most=16,
    )
    limits_store: str = _setting(
        "",
        "redis://[USER:PASSWORD@]HOST:PORT/DB, or rediss:// over TLS: where several gateways count "
        "what callers use of their limits; each gateway's memory if not given",
    )
    limits_away: str = _setting(
        "open",
        "while that Redis does not answer: open: each gateway counts for itself; shut: who has "
        "limits is refused",
        choices=("open", "shut"),
    )
    limits_timeout_s: float = _setting(
        0.04, "what a request waits for that Redis at the most, seconds", least=0.001, most=10
    )
    http_host: str = _setting("0.0.0.0", "address to listen on", form=HOST)
    http_port: int = _setting(8080, "port to listen on", most=MOST_PORTS)
    grpc_port: int = _setting(
        0,
        "port to answer gRPC on, at the same address; none if it is not given",
        least=0,
        most=MOST_PORTS,
    )
    grpc_max_connections: int = _setting(
        4096,
        "gRPC connections of one worker, a quarter of its descriptors at the most; one more is "
        "closed, and its client tries again",
        most=1_000_000,
    )
    grpc_max_connection_age_s: float = _setting(
        300.0,
        "a gRPC connection ends after so long, give or take a tenth, without harm to its calls; "
        "its client connects anew, and so leaves a gateway that is about to stop, seconds",
        least=1,
        most=DAY_S,
    )
    admin_port: int = _setting(
        8081,
        "port of /healthz, /readyz and /metrics for machines; 0: none",
        least=0,
        most=MOST_PORTS,
    )
    tls_certificate_file: str = _setting(
        "",
        "PEM file of the certificate, and those between it and the authority, for HTTPS and gRPC "
        "over TLS; read again when it changes. Without it neither port speaks TLS",
    )
    tls_key_file: str = _setting("", "PEM file of the certificate's key, without a passphrase")
    tls_client_ca_file: str = _setting(
        "",
        "PEM file of authorities: who connects must show a certificate of theirs",
    )
    cors_origins: str = _setting(
        "",
        "other sites whose pages may ask, from a browser: the origin of each, by commas",
        form=ORIGINS,
    )
    public_health: str = _setting(
        "on", "/healthz and /readyz on the public port too", choices=("on", "off")
    )
    public_metrics: str = _setting("off", "/metrics on the public port too", choices=("on", "off"))
    page: str = _setting("on", "the page of each model, under /models/", choices=("on", "off"))
    model_repository: str = _setting(
        "",
        "the model repository, where the gateway may read it: the page then shows each "
        "version's card, pictures and samples",
    )
    workers: int = _setting(
        1, "gunicorn worker processes, each one event loop", most=MOST_PROCESSES
    )
    threads: int = _setting(
        4,
        "threads in each worker for what would hold up the loop: large bodies, pictures, pages",
        most=MOST_PROCESSES,
    )
    request_timeout_s: float = _setting(
        30.0, "deadline of a prediction from its first byte on, seconds", least=0.001, most=DAY_S
    )
    head_timeout_s: float = _setting(
        10.0,
        "a connection whose request's head takes longer is closed, seconds",
        least=0.1,
        most=DAY_S,
    )
    body_timeout_s: float = _setting(
        30.0,
        "a connection whose body makes no progress for so long is closed, seconds",
        least=0.1,
        most=DAY_S,
    )
    min_body_rate: int = _setting(
        1024,
        "bytes a second that a body must come with, on average after its first seconds",
        least=0,
    )
    drain_timeout_s: float = _setting(
        30.0, "after SIGTERM, seconds for the requests in flight", least=0.1, most=DAY_S
    )
    places: int = _setting(1024, "requests that a worker works on at the same time")
    model_places: int = _setting(512, "of these, for one model")
    max_bytes_in_flight: int = _setting(
        256 * 2**20,
        "bodies that a worker holds at the same time, bytes; half as much again of answers that "
        "their clients have yet to take",
    )
    max_wait_s: float = _setting(
        1.0,
        "where requests wait longer for a model (or than two of its calls, where these take long), "
        "or for 45% of what a request's own deadline leaves, further ones are refused, seconds",
        least=0.001,
        most=DAY_S,
    )
    join_models: str = _setting(
        "*", "models whose waiting requests are joined into one call: patterns, by commas"
    )
    max_joined_rows: int = _setting(64, "most rows of a joined call")
    max_body_bytes: int = _setting(64 * 2**20, "largest request body, after decompression, bytes")
    max_image_pixels: int = _setting(50_000_000, "largest image, width × height, that is decoded")
    metadata_ttl_s: float = _setting(
        10.0, "seconds for which a model's signatures are remembered", least=0
    )
    cache_models: str = _setting(
        "",
        "models whose answers are kept, and given again to who asks the same: patterns, by commas",
    )
    cache_max_bytes: int = _setting(
        64 * 2**20, "what the answers that a worker keeps may take, bytes; the longest unused go"
    )
    cache_max_age_s: float = _setting(
        300.0, "after so long an answer is not given again, seconds", least=0.001, most=DAY_S
    )
    capture_dir: str = _setting(
        "",
        "the directory that answered requests are written to, for warm-up files and to be asked "
        "again; none are if it is not given",
    )
    capture_share: float = _setting(
        0.01, "of all requests the share that is captured, at random", least=0, most=1
    )
    capture_models: str = _setting(
        "", "models of which every request is captured: patterns, by commas"
    )
    capture_keys: str = _setting(
        "", "ids of keys of which every request is captured: patterns, by commas"
    )
    capture_leave_out: str = _setting(
        "", "inputs, and features of examples, that are not written: patterns, by commas"
    )
    capture_max_bytes: int = _setting(
        2**30, "what the files of captures may take together; the oldest go first", least=100_000
    )
    capture_max_age_s: float = _setting(
        7 * DAY_S, "after so long a captured request is deleted, seconds"
    )
    shadow_room: float = _setting(
        0.1,
        "of a worker's places and bytes, the share that requests may take which a rollout's next "
        "version is to be asked too",
        least=0,
        most=1,
    )
    shadow_dir: str = _setting(
        "",
        "the directory that requests are written to which a rollout's next version has answered "
        "otherwise, as captures are; none are if it is not given",
    )
    shadow_max_bytes: int = _setting(
        64 * 2**20, "what these files may take together; the oldest go first", least=100_000
    )
    log_level: str = _setting(
        "info",
        "what is logged: lines of this weight and above",
        choices=("debug", "info", "warning", "error"),
    )
    access_log: str = _setting("text", "one line for each request", choices=("text", "json", "off"))
    tracing: str = _setting(
        "off",
        "whether requests are traced by OpenTelemetry, as its own variables OTEL_* say",
        choices=("on", "off"),
    )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Raises InvalidSetting for a value out of its range, and for a variable SLUICE_* that
        there is not."""
        cls.check_variables(environment)
        given = {
            each.name: _read(each, variable, environment[variable])
            for each in fields(cls)
            if (variable := environment_variable(each.name)) in environment
        }
        return cls(**given)

    @classmethod
    def check_variables(cls, environment: Mapping[str, str] = os.environ) -> None:
        """Raises InvalidSetting for a variable SLUICE_* that nothing reads."""
        check_known(environment, [each.name for each in fields(cls)])

    def address(self, port: int) -> str:
        """HOST:PORT to listen on, an IPv6 host in brackets."""
        host = f"[{self.http_host}]" if ":" in self.http_host else self.http_host
        return f"{host}:{port}"


def _read(setting: Field[Any], variable: str, text: str) -> Any:
    try:
        return parse(setting, text)
    except ValueError as error:
        raise InvalidSetting(f"{variable}: {error}") from None

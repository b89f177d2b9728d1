"""Every setting of the gateway, once: its name, type, default, environment variable and meaning."""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from sluice.wire.model_config import read_names


class InvalidSetting(Exception):
    """An environment variable whose value cannot be used."""


MOST_PORTS = 65535
# HOST:PORT, and what gRPC takes beside it; several, separated by commas.
_ADDRESS = r"(unix:[^,\s]+|[^,\s]+:\d{1,5})"
_ADDRESSES = re.compile(rf"\s*{_ADDRESS}(\s*,\s*{_ADDRESS})*\s*,?\s*")


def _setting(
    default: Any,
    meaning: str,
    *,
    least: float = 1,
    most: float = math.inf,
    choices: tuple[str, ...] = (),
) -> Any:
    """A number is from `least` to `most`; a text is one of `choices`, where there are any."""
    bounds = {"least": least, "most": most, "choices": choices}
    return field(default=default, metadata={"meaning": meaning, **bounds})


@dataclass(frozen=True)
class Settings:
    """Read with `Settings.from_environment()`; the variable of `http_port` is SLUICE_HTTP_PORT."""

    model_server: str = _setting(
        "127.0.0.1:8500",
        "HOST:PORT of the model server's gRPC port; several, separated by commas, and several "
        "addresses of one name, share the calls",
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
    http_host: str = _setting("0.0.0.0", "address to listen on")
    http_port: int = _setting(8080, "port to listen on", most=MOST_PORTS)
    grpc_port: int = _setting(
        0,
        "port to answer gRPC on, at the same address; none if it is not given",
        least=0,
        most=MOST_PORTS,
    )
    admin_port: int = _setting(
        8081,
        "port of /healthz, /readyz and /metrics for machines; 0: none",
        least=0,
        most=MOST_PORTS,
    )
    public_health: str = _setting(
        "on", "/healthz and /readyz on the public port too", choices=("on", "off")
    )
    public_metrics: str = _setting("off", "/metrics on the public port too", choices=("on", "off"))
    workers: int = _setting(2, "gunicorn worker processes, each one event loop")
    threads: int = _setting(
        4, "threads in each worker for what would hold up the loop: large bodies, pictures, pages"
    )
    request_timeout_s: float = _setting(
        30.0, "deadline of a prediction from its first byte on, seconds", least=0.001
    )
    head_timeout_s: float = _setting(
        10.0, "a connection whose request's head takes longer is closed, seconds", least=0.1
    )
    body_timeout_s: float = _setting(
        30.0, "a connection whose body makes no progress for so long is closed, seconds", least=0.1
    )
    min_body_rate: int = _setting(
        1024,
        "bytes a second that a body must come with, on average after its first seconds",
        least=0,
    )
    drain_timeout_s: float = _setting(
        30.0, "after SIGTERM, seconds for the requests in flight", least=0.1
    )
    places: int = _setting(1024, "requests that a worker works on at the same time")
    model_places: int = _setting(512, "of these, for one model")
    max_bytes_in_flight: int = _setting(
        256 * 2**20, "bodies that a worker holds at the same time, bytes"
    )
    max_wait_s: float = _setting(
        1.0,
        "where requests have waited longer for a model, further ones are refused, seconds",
        least=0.001,
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
    log_level: str = _setting(
        "info",
        "debug, info, warning or error",
        choices=("debug", "info", "warning", "error"),
    )
    access_log: str = _setting(
        "text", "one line for each request: text, json or off", choices=("text", "json", "off")
    )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Raises InvalidSetting for a value of the wrong type."""
        given = {
            each.name: _parse(each, variable, environment[variable])
            for each in fields(cls)
            if (variable := environment_variable(each.name)) in environment
        }
        return cls(**given)

    def address(self, port: int) -> str:
        """HOST:PORT to listen on, an IPv6 host in brackets."""
        host = f"[{self.http_host}]" if ":" in self.http_host else self.http_host
        return f"{host}:{port}"

    def model_names(self) -> list[str]:
        """The names in `models`, then those in `model_config_file`, as it is now."""
        named = [name.strip() for name in self.models.split(",") if name.strip()]
        if self.model_config_file:
            named += read_names(Path(self.model_config_file))
        return list(dict.fromkeys(named))


def environment_variable(setting: str) -> str:
    """`http_port` -> `SLUICE_HTTP_PORT`."""
    return f"SLUICE_{setting.upper()}"


def _parse(setting: Field[Any], variable: str, text: str) -> Any:
    kind: Any = setting.type
    if kind is str:
        choices = setting.metadata["choices"]
        if choices and text not in choices:
            raise InvalidSetting(f"{variable}: expected {' or '.join(choices)}, got {text!r}")
        if setting.name == "model_server" and not _is_addresses(text):
            raise InvalidSetting(f"{variable}: expected HOST:PORT[,HOST:PORT...], got {text!r}")
        return text
    try:
        value = kind(text)
    except ValueError:
        raise InvalidSetting(f"{variable}: expected {kind.__name__}, got {text!r}") from None
    least, most = setting.metadata["least"], setting.metadata["most"]
    if not least <= value <= most or value == math.inf:
        bounds = f"{least:g} on" if most == math.inf else f"{least:g} to {most:g}"
        raise InvalidSetting(f"{variable}: expected a number from {bounds}, got {text!r}")
    return value


def _is_addresses(text: str) -> bool:
    ports = re.findall(r":(\d+)\s*(?:,|$)", text)
    return bool(_ADDRESSES.fullmatch(text)) and all(0 < int(port) <= MOST_PORTS for port in ports)

"""Every setting of the gateway, once: its name, type, default, environment variable and meaning."""

import os
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from sluice.wire.model_config import read_names


class InvalidSetting(Exception):
    """An environment variable whose value cannot be used."""


def _setting(default: Any, meaning: str, may_be_zero: bool = False) -> Any:
    return field(default=default, metadata={"meaning": meaning, "may_be_zero": may_be_zero})


@dataclass(frozen=True)
class Settings:
    """Read with `Settings.from_environment()`; the variable of `http_port` is SLUICE_HTTP_PORT."""

    model_server: str = _setting(
        "127.0.0.1:8500",
        "HOST:PORT of the model server's gRPC port; several, separated by commas, are used in turn",
    )
    models: str = _setting(
        "",
        "names of the served models, separated by commas: what /readyz "
        "waits for (a model server's gRPC API cannot list its models)",
    )
    model_config_file: str = _setting(
        "",
        "the model server's own models.config: another way to "
        "name the models; read again at each use",
    )
    http_host: str = _setting("0.0.0.0", "address to listen on")
    http_port: int = _setting(8080, "port to listen on")
    grpc_port: int = _setting(
        0, "port to answer gRPC on, at the same address; none if it is not given", may_be_zero=True
    )
    workers: int = _setting(2, "gunicorn worker processes")
    threads: int = _setting(16, "threads in each worker: requests it works on at the same time")
    request_timeout_s: float = _setting(30.0, "deadline of a prediction, seconds")
    drain_timeout_s: float = _setting(30.0, "after SIGTERM, seconds for the requests in flight")
    max_body_bytes: int = _setting(64 * 2**20, "largest request body, after decompression, bytes")
    max_image_pixels: int = _setting(50_000_000, "largest image, width × height, that is decoded")
    metadata_ttl_s: float = _setting(10.0, "seconds for which a model's signatures are remembered")
    log_level: str = _setting("info", "debug, info, warning or error")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Raises InvalidSetting for a value of the wrong type."""
        given = {
            each.name: _parse(each, variable, environment[variable])
            for each in fields(cls)
            if (variable := environment_variable(each.name)) in environment
        }
        return cls(**given)

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
    try:
        value = kind(text)
    except ValueError:
        raise InvalidSetting(f"{variable}: expected {kind.__name__}, got {text!r}") from None
    if kind is not str and (value < 0 or (value == 0 and not setting.metadata["may_be_zero"])):
        raise InvalidSetting(f"{variable}: expected a number above 0, got {text!r}")
    return value

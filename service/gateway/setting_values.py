"""What values a setting may have: in words, and read from the text of its variable."""

import ipaddress
import math
import re
from collections.abc import Callable
from dataclasses import Field
from typing import Any, NamedTuple

MOST_PORTS = 65535
# HOST:PORT, and what gRPC takes beside it; several, separated by commas.
_ADDRESS = r"(unix:[^,\s]+|[^,\s]+:\d{1,5})"
_ADDRESSES = re.compile(rf"\s*{_ADDRESS}(\s*,\s*{_ADDRESS})*\s*,?\s*")


class Form(NamedTuple):
    """Of a text: in words, and whether one has it."""

    words: str
    fits: Callable[[str], bool]


def range_of(setting: Field[Any]) -> str:
    """What values there are, in a few words; "" where any text will do."""
    least, most, choices, form = _bounds(setting)
    if setting.type is str:
        return " or ".join(choices) or form.words
    return f"{least:g} or more" if most == math.inf else f"{least:g} to {most:g}"


def parse(setting: Field[Any], text: str) -> Any:
    """The value that a text stands for. Raises ValueError, whose message follows the variable's
    name."""
    kind: Any = setting.type
    try:
        value = kind(text)
    except ValueError:
        value = math.nan  # which no range holds
    if not _fits(setting, value):
        words = {int: "a whole number, ", float: "a number, "}.get(kind, "")
        advice = (
            " (Kubernetes sets it for a Service of that name: enableServiceLinks: false)"
            if text.startswith("tcp://")
            else ""
        )
        raise ValueError(f"expected {words}{range_of(setting)}, got {text!r}{advice}")
    return value


def _fits(setting: Field[Any], value: Any) -> bool:
    least, most, choices, form = _bounds(setting)
    if isinstance(value, str):
        return value in choices if choices else form.fits(value)
    return bool(least <= value <= most and value != math.inf)


def _bounds(setting: Field[Any]) -> tuple[float, float, tuple[str, ...], Form]:
    least, most, choices, form = (
        setting.metadata[key] for key in ("least", "most", "choices", "form")
    )
    return least, most, choices, form


def _is_addresses(text: str) -> bool:
    ports = re.findall(r":(\d+)\s*(?:,|$)", text)
    return bool(_ADDRESSES.fullmatch(text)) and all(0 < int(port) <= MOST_PORTS for port in ports)


def _is_host(text: str) -> bool:
    if ":" not in text:
        return bool(re.fullmatch(r"[^\s/\[\]]+", text))
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _is_origins(text: str) -> bool:
    """As browsers write them: lower-case, and with nothing behind the host."""
    return all(
        re.fullmatch(r"[a-z][a-z0-9+.-]*://[a-z0-9.\[\]:-]+", each.strip())
        for each in text.split(",")
        if text
    )


ANY_TEXT = Form("", lambda _: True)
ADDRESSES = Form("HOST:PORT[,HOST:PORT...]", _is_addresses)
HOST = Form("a name or an address, without a port", _is_host)
ORIGINS = Form("SCHEME://HOST[:PORT][,...]", _is_origins)

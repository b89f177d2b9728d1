"""What an object of somebody's JSON holds, or why it is not what was expected, in one line."""

import reprlib
from collections.abc import Mapping
from typing import Any

from sluice.wire.versions import version_number


def field(given: Mapping[str, Any], name: str, kind: type[Any], default: Any = None) -> Any:
    """A value of exactly this kind. Raises ValueError.

    >>> field({"id": "a"}, "id", str)
    'a'
    """
    found = given.get(name, default)
    if type(found) is not kind:
        raise ValueError(f"{name}: expected {kind.__name__}, got {shown(found)}")
    return found


def version_field(given: Mapping[str, Any], name: str) -> int:
    """A version's number. Raises ValueError.

    >>> version_field({"live": 7}, "live")
    7
    """
    found: int = field(given, name, int)
    if found < 0 or version_number(str(found)) is None:
        raise ValueError(f"{name}: expected a version's number, got {shown(found)}")
    return found


def share_field(given: Mapping[str, Any], name: str, default: float) -> float:
    """A number from 0 to 1. Raises ValueError.

    >>> share_field({}, "canary_share", 0.5)
    0.5
    """
    found = given.get(name, default)
    if type(found) not in (int, float) or not 0 <= found <= 1:
        raise ValueError(f"{name}: expected a number from 0 to 1, got {shown(found)}")
    return float(found)


def shown(found: object) -> str:
    """What was found instead.

    >>> shown("x" * 1000)
    "'xxxxxxxxxxxx...xxxxxxxxxxxxx'"
    """
    return reprlib.repr(found)

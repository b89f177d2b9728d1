"""Several headers of one name, or values of one key of gRPC's metadata."""

from collections.abc import Sequence


def combined(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Headers, or gRPC metadata, by name, each one's values in the order in which they came: as
    one list (RFC 9110, 5.3), so that two keys are none, and what a proxy added stands last.

    >>> combined([("a", "1"), ("b", "2"), ("a", "3")])
    {'a': '1, 3', 'b': '2'}
    """
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    several: dict[str, list[str]] = {}
    for name, value in pairs:
        several.setdefault(name, []).append(value)
    return {
        name: ("; " if name == "cookie" else ", ").join(values) for name, values in several.items()
    }

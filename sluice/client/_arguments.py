"""What the two clients are given: a server's URL, a key, a model, inputs."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from sluice.client._inputs import Value
from sluice.wire.model_ref import ModelRef


def with_key(headers: Mapping[str, str], api_key: str | None) -> dict[str, str]:
    """Raises ValueError, which does not repeat the key.

    >>> with_key({}, "sluice_me_00")
    {'Authorization': 'Bearer sluice_me_00'}
    """
    if api_key is None:
        return dict(headers)
    if not (api_key and api_key.isascii() and api_key.isprintable() and " " not in api_key):
        raise ValueError("api_key: expected one word of printable ASCII characters")
    return {**headers, "Authorization": f"Bearer {api_key}"}


def speaks_grpc(url: str) -> bool:
    """Whether the URL of a server names gRPC. Raises ValueError for any other URL.

    >>> speaks_grpc("grpc://localhost:8500"), speaks_grpc("https://example.org")
    (True, False)
    """
    parts = urlsplit(url)
    if (
        parts.scheme not in ("http", "https", "grpc", "grpcs")
        or not parts.hostname
        or parts.port == 0
    ):
        raise ValueError(
            f"{url!r}: expected a server's URL, http[s]://HOST:PORT or grpc[s]://HOST:PORT"
        )
    return parts.scheme.startswith("grpc")


def model_ref(model: str, version: int | None, label: str | None) -> ModelRef:
    """Raises ValueError where the version is named twice."""
    if version is not None and label is not None:
        raise ValueError(
            f"version={version} and label={label!r} are both given; name the version by one of them"
        )
    return ModelRef(model, version, label)


def values_of(
    inputs: Mapping[str, Value] | Value | None, named: Mapping[str, Value]
) -> dict[str | None, Value]:
    """By input name; None stands for the only input."""
    values: dict[str | None, Value] = {}
    values.update(named)
    if isinstance(inputs, Mapping):
        values.update(inputs)
    elif inputs is not None:
        values[None] = inputs
    return values

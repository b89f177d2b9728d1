"""Sluice's ground floor: the Python client that other people import, and the wire under it all.

    from sluice import Client

    with Client("http://localhost:8080") as client:
        print(client.predict("digits", "three.png").labels)

`service`, `training` and the client stand on `sluice.wire`; nothing here imports them, tensorflow,
flask or gunicorn. The client is imported when it is asked for: a server that needs the wire alone
is spared httpx.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sluice.client import (
        AsyncClient,
        BadReply,
        BadRequest,
        Cancelled,
        Client,
        ClientError,
        DeadlineExceeded,
        Guess,
        ModelMetadata,
        NotAllowed,
        NotFound,
        NotSupported,
        Overloaded,
        Prediction,
        ServerFailed,
        Signature,
        TensorSpec,
        TooLarge,
        TryLater,
        Unavailable,
        VersionStatus,
    )

__all__ = [
    "AsyncClient",
    "BadReply",
    "BadRequest",
    "Cancelled",
    "Client",
    "ClientError",
    "DeadlineExceeded",
    "Guess",
    "ModelMetadata",
    "NotAllowed",
    "NotFound",
    "NotSupported",
    "Overloaded",
    "Prediction",
    "ServerFailed",
    "Signature",
    "TensorSpec",
    "TooLarge",
    "TryLater",
    "Unavailable",
    "VersionStatus",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module("sluice.client"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

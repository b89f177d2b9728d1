"""Predictions from Python, over HTTP or gRPC: numpy in and out, no TensorFlow.

    from sluice import Client

    with Client("http://localhost:8080") as client:
        client.predict("digits", image="three.png").labels

docs/client.md tells the rest.
"""

from sluice.client._async_client import AsyncClient
from sluice.client._client import Client
from sluice.client.errors import (
    BadReply,
    BadRequest,
    Cancelled,
    ClientError,
    DeadlineExceeded,
    NotAllowed,
    NotFound,
    NotSupported,
    Overloaded,
    ServerFailed,
    TooLarge,
    TryLater,
    Unavailable,
)
from sluice.client.results import (
    Guess,
    ModelMetadata,
    Prediction,
    VersionStatus,
)
from sluice.wire.signature import Signature, TensorSpec

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

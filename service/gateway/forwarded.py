"""A request about examples, which goes to a version as it came: Classify, Regress, MultiInference.

A Question has been read and checked, and can go with others; this one is bytes, goes alone, and
its reply is read by nobody but who compares it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from service.gateway.caller import Caller
from service.gateway.capturing import AnyCapture
from service.gateway.model_server import CLASSIFY, MULTI_INFERENCE, REGRESS
from service.replay.answers import outputs_of
from sluice.wire.model_ref import ModelRef
from sluice.wire.protos import serving_pb2 as serving
from sluice.wire.tensors import Array

# The messages of their replies. What is asked by these is a prediction: it goes where a rollout
# says.
PREDICTING: Mapping[str, Any] = {
    CLASSIFY: serving.ClassificationResponse,
    REGRESS: serving.RegressionResponse,
    MULTI_INFERENCE: serving.MultiInferenceResponse,
}


class Forwarded(NamedTuple):
    """The serialized `request` of "/SERVICE/METHOD", one of PREDICTING, which `model` was asked."""

    method: str
    request: bytes
    model: ModelRef

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.request)

    @property
    def rows(self) -> None:
        """Nobody has counted them."""
        return None

    def write_to(self, capture: AnyCapture, version: int, caller: Caller) -> None:
        """As one that this version has answered."""
        model = ModelRef(self.model.name, version)
        capture.forwarded(self.method, self.request, model, caller)


class Unread(NamedTuple):
    """What `model` replied: an Answer that is read where its outputs are asked for."""

    method: str
    reply: bytes
    model: ModelRef

    @property
    def version(self) -> int | None:
        """That was asked; None where it was left to the model server which."""
        return self.model.version

    @property
    def outputs(self) -> dict[str, Array]:
        """Of large ones not in the event loop."""
        return outputs_of(PREDICTING[self.method].FromString(self.reply))

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.reply)

    def to_keep(self) -> "Unread":
        """It holds nothing but itself."""
        return self

"""What can be asked of a server, in no protocol's words, and the steps that a client takes."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from sluice.client.results import ModelMetadata, Prediction, VersionStatus
from sluice.wire.model_ref import ModelRef
from sluice.wire.tensors import Array

Result = TypeVar("Result")


class Call(Generic[Result]):
    """A question, by the type of its answer."""


@dataclass(frozen=True)
class Predict(Call[Prediction]):
    """All outputs where none is named. pictures: the inputs that hold files, [N] strings, which the
    server is to decode, as the signature takes pixels."""

    model: ModelRef
    signature: str
    inputs: Mapping[str, Array]
    outputs: tuple[str, ...]
    pictures: frozenset[str] = frozenset()


@dataclass(frozen=True)
class GetMetadata(Call[ModelMetadata]):
    model: ModelRef


@dataclass(frozen=True)
class GetStatus(Call[list[VersionStatus]]):
    """Newest first."""

    model: str


@dataclass(frozen=True)
class IsReady(Call[bool]):
    """The server itself where no model is named."""

    model: str | None


@dataclass(frozen=True)
class ListModels(Call[list[str]]):
    pass


class Attempt(NamedTuple):
    """A step: send the call. Its result is what comes back, or the ClientError that is thrown."""

    call: Call[Any]
    timeout_s: float


class Pause(NamedTuple):
    """A step: wait."""

    seconds: float


# A client's method as the steps it takes, so that threads and asyncio run the same code.
Flow = Generator[Attempt | Pause, Any, Result]

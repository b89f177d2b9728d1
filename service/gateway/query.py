"""Decoded requests: what every dialect's decoder makes, and every encoder is handed back."""

from dataclasses import dataclass, field

from sluice.wire.protos.serving_pb2 import Input
from sluice.wire.signature import Signature
from sluice.wire.tensors import Array


@dataclass(frozen=True)
class Query:
    """A signature of a model, and an array for each of its inputs, not yet validated.

    `timeout_s`: the time that the body itself gives the whole of its request, if it does.
    """

    signature: Signature
    inputs: dict[str, Array]
    timeout_s: float | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class TfsQuery(Query):
    """TensorFlow Serving's JSON: `instances` -> `predictions`, or `inputs` -> `outputs`.

    A file asks for neither, and is answered in rows where every output has them.
    """

    row_format: bool = True
    is_file: bool = False


@dataclass(frozen=True)
class RequestedOutput:
    """An output that is wanted, as raw bytes or as JSON numbers."""

    name: str
    binary: bool


@dataclass(frozen=True)
class OipQuery(Query):
    """The Open Inference Protocol: an id that is handed back, and the outputs that are wanted."""

    id: str | None = None
    outputs: tuple[RequestedOutput, ...] = ()  # all of the signature's where none is named
    binary_outputs: bool = False  # for those that are not named

    def wanted(self) -> tuple[str, ...]:
        """The outputs that are named; () for all."""
        return tuple(output.name for output in self.outputs)


@dataclass(frozen=True)
class ExamplesQuery:
    """tf.Examples for a classify or regress signature; no name stands for the server's default."""

    signature_name: str
    examples: Input

"""Decoded requests: what every dialect's decoder makes, and every encoder is handed back."""
from dataclasses import dataclass

from service.gateway.signature import Signature
from service.protos.serving_pb2 import Input
from service.tensors import Array


@dataclass(frozen=True)
class Query:
    """A signature of a model, and an array for each of its inputs, not yet validated."""

    signature: Signature
    inputs: dict[str, Array]
    row_format: bool = True  # TF Serving's "instances" -> "predictions"; else "inputs" -> "outputs"


@dataclass(frozen=True)
class ExamplesQuery:
    """tf.Examples for a classify or regress signature; no name stands for the server's default."""

    signature_name: str
    examples: Input

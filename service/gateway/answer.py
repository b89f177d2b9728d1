"""What a model answered."""

from typing import NamedTuple

from sluice.wire.tensors import Array


class Answer(NamedTuple):
    """Outputs by name, and the version that gave them."""

    outputs: dict[str, Array]
    version: int

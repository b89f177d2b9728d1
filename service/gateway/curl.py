"""A line to paste into a shell that gets an answer from a model."""

import json
import math
import shlex
from typing import Any

import numpy as np

from service.gateway.decode.magic import NPZ
from service.gateway.decode.pixels import takes_pixels
from service.gateway.signatures import Signatures
from sluice.wire.contract import DEFAULT_SIGNATURE, ENCODED_SIGNATURE
from sluice.wire.signature import Signature, TensorSpec

LARGEST_EXAMPLE = 256  # elements; more do not fit a line


def curl_line(url: str, signatures: Signatures) -> str:
    """A request that the model answers; IMAGE.png stands for a file of the reader's own."""
    encoded = ENCODED_SIGNATURE in signatures
    signature = signatures.get(ENCODED_SIGNATURE if encoded else DEFAULT_SIGNATURE)
    specs = list(signature.inputs.values())
    if encoded or any(takes_pixels(spec) for spec in specs):
        fields = [
            f"-F {spec.name}=@IMAGE.png"
            if spec.is_string or takes_pixels(spec)
            else f"-F {spec.name}={shlex.quote(json.dumps(_zeros(spec)))}"
            for spec in specs
        ]
        return f"curl {' '.join(fields)} {url}:predict"
    if sum(map(_elements, specs)) <= LARGEST_EXAMPLE:
        columns = {spec.name: [_zeros(spec)] for spec in specs}  # every output fits columns
        return f"curl -d {shlex.quote(json.dumps({'inputs': columns}))} {url}:predict"
    return (
        f"python3 -c {shlex.quote(_script(signature))} | "
        f"curl --data-binary @- -H 'Content-Type: {NPZ}' {url}:predict"
    )


def _script(signature: Signature) -> str:
    arrays = ", ".join(
        f"{name}=np.zeros({(1, *_row_shape(spec))}, '{spec.dtype.name}')"
        for name, spec in signature.inputs.items()
    )
    return f"import sys, numpy as np; np.savez(sys.stdout.buffer, {arrays})"


def _zeros(spec: TensorSpec) -> Any:
    """One row of zeros, or of empty strings."""
    empty = "" if spec.is_string else np.zeros((), spec.dtype).item()
    return np.full(_row_shape(spec), empty, object).tolist()


def _elements(spec: TensorSpec) -> int:
    return math.prod(_row_shape(spec))


def _row_shape(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(size or 1 for size in (spec.shape or ())[1:])

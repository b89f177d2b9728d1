"""The signature `pixels`, which answers what `serving_default` does from a quarter of the bytes."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from sluice.wire.contract import DEFAULT_SIGNATURE, PIXELS_SIGNATURE
from sluice.wire.signature import Signature
from sluice.wire.tensors import Array

UINT8 = np.dtype(np.uint8)


def inputs_as_bytes(signatures: Mapping[str, Signature]) -> frozenset[str]:
    """The inputs that `pixels` takes as uint8 and `serving_default` as wider numbers.

    None where the model has no `pixels`, or one of its own that is anything else.

    >>> from sluice.wire.signature import TensorSpec
    >>> floats = TensorSpec("image", np.dtype("f4"), (None, 8, 8, 1))
    >>> wide = Signature("serving_default", {"image": floats}, {})
    >>> narrow = Signature("pixels", {"image": replace(floats, dtype=UINT8)}, {})
    >>> inputs_as_bytes({"serving_default": wide, "pixels": narrow})
    frozenset({'image'})
    >>> inputs_as_bytes({"serving_default": wide, "pixels": replace(wide, name="pixels")})
    frozenset()
    """
    wide, narrow = signatures.get(DEFAULT_SIGNATURE), signatures.get(PIXELS_SIGNATURE)
    if not wide or not narrow or wide.outputs != narrow.outputs:
        return frozenset()
    names = [name for name, spec in narrow.inputs.items() if spec != wide.inputs.get(name)]
    as_bytes = {
        name: replace(wide.inputs[name], dtype=UINT8) for name in names & wide.inputs.keys()
    }
    return frozenset(names) if narrow.inputs == {**wide.inputs, **as_bytes} else frozenset()


def are_bytes(inputs: Mapping[str, Array], names: frozenset[str], narrow: Signature) -> bool:
    """Whether `narrow`, the signature `pixels`, takes the arrays of a request for
    `serving_default` as they are; `names`: the inputs that it takes as uint8.

    >>> from sluice.wire.signature import TensorSpec
    >>> spec = TensorSpec("image", UINT8, (None, 8, 8, 1))
    >>> picture = np.zeros((1, 8, 8, 1), np.uint8)
    >>> narrow = Signature("pixels", {"image": spec}, {})
    >>> are_bytes({"image": picture}, frozenset(["image"]), narrow)
    True
    >>> are_bytes({"image": picture / 255}, frozenset(["image"]), narrow)
    False
    """
    return (
        bool(names)
        and inputs.keys() == narrow.inputs.keys()
        and all(
            inputs[name].dtype == UINT8 and narrow.inputs[name].accepts(inputs[name].shape)
            for name in names
        )
    )

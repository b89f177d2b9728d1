"""The names of an explanation's tensors, and the class that is meant where none is named.

docs/contract.md says what the signatures `explain` and `explain_encoded` take and give.
"""

from collections.abc import Mapping

import numpy as np

from sluice.wire.contract import BEST_CLASS, CLASS, HEATMAP
from sluice.wire.signature import Signature
from sluice.wire.tensors import Array


def with_best_class(signature: Signature, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """`inputs`, [N, ...] each, with BEST_CLASS [N] for every class that is not named.

    >>> from sluice.wire.signature import TensorSpec
    >>> asked = TensorSpec("class", np.dtype("i4"), (None,))
    >>> image = TensorSpec("image", np.dtype("f4"), (None, 2))
    >>> why = Signature("explain", {"class": asked, "image": image}, {})
    >>> with_best_class(why, {"image": np.zeros((3, 2))})["class"]
    array([-1, -1, -1], dtype=int32)
    """
    missing = [name for name in signature.class_inputs if name not in inputs]
    if not missing:
        return dict(inputs)
    rows = max((len(array) for array in inputs.values() if array.ndim), default=1)
    return {**inputs, **{name: np.full(rows, BEST_CLASS, np.int32) for name in missing}}


def prefix_of(class_input: str) -> str:
    """What stands before the names of the head that `class_input` is of: "" of the only one.

    >>> prefix_of("class"), prefix_of("digit_class")
    ('', 'digit_')
    """
    return class_input.removesuffix(CLASS)


def heatmaps(prefix: str, signature: Signature) -> dict[str, str]:
    """A head's heatmaps: by image input the output's name; the only input's is under "".

    >>> from sluice.wire.signature import TensorSpec
    >>> map_ = TensorSpec("heatmap_left", np.dtype("f4"), (None, 8, 8))
    >>> heatmaps("", Signature("explain", {}, {"heatmap_left": map_}))
    {'left': 'heatmap_left'}
    """
    stem = prefix + HEATMAP
    return {
        name.removeprefix(stem).removeprefix("_"): name
        for name in signature.outputs
        if name == stem or name.startswith(f"{stem}_")
    }

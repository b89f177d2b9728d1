"""The class that is to be explained: by its index or label, and held to those that its head has."""

from collections.abc import Mapping, Sequence

import numpy as np

from service.gateway.errors import InvalidInput, MalformedRequest, shown
from service.gateway.signatures import Signatures
from sluice.wire.contract import (
    BEST_CLASS,
    CLASSES_SUFFIX,
    DEFAULT_SIGNATURE,
    ENCODED_SIGNATURE,
)
from sluice.wire.explanations import prefix_of
from sluice.wire.signature import Signature
from sluice.wire.tensors import Array

Labels = Mapping[str, Sequence[str]]  # of all classes, by head
_MOST_DIGITS = 9  # within an int32
_SHOWN = 20  # labels in a message


def check_classes(
    signature: Signature, inputs: Mapping[str, Array], signatures: Signatures
) -> None:
    """Raises InvalidInput where `inputs` of a signature that explains ask for a class that its head
    has not: what a model makes of one differs from device to device."""
    for name in signature.class_inputs:
        size = _size_of(head_of(name, signatures), signatures)
        strange = inputs[name][(inputs[name] < BEST_CLASS) | (inputs[name] >= (size or np.inf))]
        if strange.size:
            those = f"0 to {size - 1}" if size else "0 and more"
            raise InvalidInput(
                name, f"a class, {those}, or {BEST_CLASS} for the best one", str(strange[0])
            )


def head_of(class_input: str, signatures: Signatures) -> str:
    """The output whose classes an input means; "" where that cannot be told."""
    if prefix := prefix_of(class_input):
        return prefix.removesuffix("_")
    named: list[str] = []
    if ENCODED_SIGNATURE in signatures:
        outputs = signatures.get(ENCODED_SIGNATURE).outputs
        named = [each.removesuffix(CLASSES_SUFFIX) for each in outputs if CLASSES_SUFFIX in each]
    if not named and DEFAULT_SIGNATURE in signatures:
        named = list(signatures.get(DEFAULT_SIGNATURE).outputs)
    return named[0] if len(named) == 1 else ""


def index_of(name: str, head: str, outputs: Mapping[str, Array], labels: Labels) -> int:
    """The index of a head's class by its index, whatever the labels are, or by its label: one of
    all `labels`, or where these are not known of the best that `outputs` hold. Raises
    MalformedRequest."""
    digits = name.removeprefix("-")
    if digits.isascii() and digits.isdigit() and len(digits) <= _MOST_DIGITS:
        return int(name)
    known = {label: index for index, label in enumerate(labels.get(head, ()))}
    known = known or _best(head, outputs)
    if name not in known:
        listing = ", ".join(shown(label) for label in list(known)[:_SHOWN])
        raise MalformedRequest(
            f"?explain={shown(name)}: no class is known here by this label; give true, its index"
            + (f", or a label: {listing}" if listing else "")
        )
    return known[name]


def _best(head: str, outputs: Mapping[str, Array]) -> dict[str, int]:
    """By label the index of each class that is among the best of a row."""
    classes, scores = outputs.get(head + CLASSES_SUFFIX), outputs.get(head)
    if classes is None or scores is None or scores.ndim != 2 or classes.ndim != 2:
        return {}
    best = np.argsort(-scores, axis=1, kind="stable")[:, : classes.shape[1]]
    if best.shape != classes.shape:  # one score stands for two classes
        return {}
    pairs = zip(classes.ravel(), best.ravel(), strict=True)
    return {label.decode(errors="replace"): int(index) for label, index in pairs}


def _size_of(head: str, signatures: Signatures) -> int | None:
    if DEFAULT_SIGNATURE not in signatures:
        return None
    spec = signatures.get(DEFAULT_SIGNATURE).outputs.get(head)
    size = spec.shape[1] if spec and spec.shape is not None and len(spec.shape) == 2 else None
    return max(size, 2) if size else None  # one score stands for two classes

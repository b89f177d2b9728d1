"""What a client answers with."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from sluice.client.drawing import html
from sluice.client.tables import guess_lines, table, value_lines
from sluice.wire.contract import CLASSES_SUFFIX, NOVELTY, SCORES_SUFFIX, State
from sluice.wire.protos.serving_pb2 import ModelVersionStatus, SignatureDefMap
from sluice.wire.signature import Signature, callable_signatures, dtype_name, shape_text
from sluice.wire.tensors import Array

PRINTED_GUESSES, PRINTED_LINES = 3, 30


class Guess(NamedTuple):
    """A label and how sure the model is of it.

    >>> Guess("3", 0.75)
    Guess(label='3', score=0.75)
    """

    label: str
    score: float


class Prediction(Mapping[str, Array]):
    """Arrays by output name, batch first and read-only; strings are object arrays of bytes.

    `model` and `version` answered (None where the server does not say), by `signature`. Where the
    outputs hold `<head>_classes` and `<head>_scores`, `labels`, `top` and `ranked` read them.
    `inputs` are the arrays that were asked, by name, files as their bytes.

    It prints as a table, and draws itself in a notebook (`sluice/client/drawing.py`).

    >>> import numpy as np
    >>> outputs = {
    ...     "label_classes": np.array([[b"3", b"8"]], object),
    ...     "label_scores": np.array([[0.75, 0.25]], np.float32),
    ... }
    >>> prediction = Prediction(outputs, "digits", 1, "encoded")
    >>> prediction.labels
    ['3']
    >>> prediction.ranked("label")
    [[Guess(label='3', score=0.75), Guess(label='8', score=0.25)]]
    >>> prediction
    <Prediction of digits version 1: label_classes: string [1,2], label_scores: float32 [1,2]>
    >>> print(prediction)
    ROW  HEAD   LABEL  SCORE
    0    label  3      0.7500
    0    label  8      0.2500
    """

    def __init__(
        self,
        outputs: Mapping[str, Array],
        model: str,
        version: int | None,
        signature: str,
        inputs: Mapping[str, Array] | None = None,
    ) -> None:
        self.inputs = dict(inputs or {})
        self._outputs = dict(sorted(outputs.items()))
        self.model, self.version, self.signature = model, version, signature

    @property
    def heads(self) -> list[str]:
        """The outputs that come with labels, sorted."""
        return sorted(
            name.removesuffix(CLASSES_SUFFIX)
            for name in self
            if name.endswith(CLASSES_SUFFIX)
            and name.removesuffix(CLASSES_SUFFIX) + SCORES_SUFFIX in self
        )

    @property
    def novelty(self) -> Array | None:
        """How unlike the training images each row is, float32 [N]: above 1, unlike. None where the
        version does not say it."""
        return self.get(NOVELTY)

    @property
    def labels(self) -> list[str]:
        """The best label of each row. Raises as `ranked` does."""
        return [guess.label for guess in self.top]

    @property
    def top(self) -> list[Guess]:
        """The best guess for each row. Raises as `ranked` does."""
        return [guesses[0] for guesses in self.ranked()]

    def ranked(self, head: str | None = None) -> list[list[Guess]]:
        """For each row the guesses of a head, best first; the head may be left out if it is the
        only one. Raises LookupError where there is none, or several."""
        head = self._only_head() if head is None else head
        if head not in self.heads:
            raise LookupError(
                f"{self.model} has no labels for {head!r}: that takes the outputs "
                f"{head}{CLASSES_SUFFIX} and {head}{SCORES_SUFFIX}, and its outputs are "
                f"{', '.join(self)}"
            )
        rows = zip(self[head + CLASSES_SUFFIX], self[head + SCORES_SUFFIX], strict=True)
        return [
            [
                Guess(label.decode(errors="replace"), float(score))
                for label, score in zip(labels, scores, strict=True)
            ]
            for labels, scores in rows
        ]

    def _only_head(self) -> str:
        if len(self.heads) != 1:
            raise LookupError(
                f"{self.model} has labels for several heads: name one of {', '.join(self.heads)}"
                if self.heads
                else f"{self.model} answered without labels; its outputs are {', '.join(self)}"
            )
        return self.heads[0]

    def __getitem__(self, name: str) -> Array:
        return self._outputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)

    def __repr__(self) -> str:
        arrays = ", ".join(
            f"{name}: {dtype_name(array.dtype)} {shape_text(array.shape)}"
            for name, array in self.items()
        )
        return f"<Prediction of {self.model} version {self.version}: {arrays}>"

    def __str__(self) -> str:
        """The first rows' best labels, or the outputs' first values."""
        if not self.heads:
            return table(["output", "dtype", "shape", "values"], value_lines(self))
        lines = list(guess_lines(self, top_k=PRINTED_GUESSES))
        more = [["..."]] if len(lines) > PRINTED_LINES else []
        return table(["row", "head", "label", "score"], [*lines[:PRINTED_LINES], *more])

    def _repr_html_(self) -> str:
        return html(self)

    # Mapping would compare arrays by ==, which has no truth.
    __eq__ = object.__eq__
    __hash__ = object.__hash__


@dataclass(frozen=True)
class ModelMetadata:
    """What a version of a model takes and gives, by signature name.

    >>> protos = SignatureDefMap()
    >>> protos.signature_def["serving_default"].inputs["image"].dtype = 1
    >>> ModelMetadata.from_proto("digits", 1, protos).signatures["serving_default"].inputs
    {'image': image: float32 [...]}
    """

    name: str
    version: int
    signatures: Mapping[str, Signature]

    @classmethod
    def from_proto(cls, name: str, version: int, protos: SignatureDefMap) -> "ModelMetadata":
        """Without the signatures that cannot be called."""
        return cls(name, version, callable_signatures(protos.signature_def))


@dataclass(frozen=True)
class VersionStatus:
    """A version that the server knows: START, LOADING, AVAILABLE, UNLOADING or END, and the error
    that ended it, if one did.

    >>> VersionStatus.from_proto(ModelVersionStatus(version=2, state=State.AVAILABLE))
    VersionStatus(version=2, state='AVAILABLE', error='')
    """

    version: int
    state: str
    error: str

    @classmethod
    def from_proto(cls, proto: ModelVersionStatus) -> "VersionStatus":
        return cls(proto.version, State.Name(proto.state), proto.status.error_message)

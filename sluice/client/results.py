"""What a client answers with."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from sluice.wire.protos.serving_pb2 import ModelVersionStatus, SignatureDefMap
from sluice.wire.protos.tensorflow_pb2 import SignatureDef, TensorInfo
from sluice.wire.tensors import Array, TensorError, numpy_dtype

_CLASSES, _SCORES = "_classes", "_scores"


class Guess(NamedTuple):
    """A label and how sure the model is of it."""

    label: str
    score: float


class Prediction(Mapping[str, Array]):
    """Arrays by output name, batch first and read-only; strings are object arrays of bytes.

    `model` and `version` answered (None where the server does not say), by `signature`. Where the
    outputs hold `<head>_classes` and `<head>_scores`, `labels`, `top` and `ranked` read them.
    """

    def __init__(
        self, outputs: Mapping[str, Array], model: str, version: int | None, signature: str
    ) -> None:
        self._outputs = dict(sorted(outputs.items()))
        self.model, self.version, self.signature = model, version, signature

    @property
    def heads(self) -> list[str]:
        """The outputs that come with labels, sorted."""
        return sorted(
            name.removesuffix(_CLASSES)
            for name in self
            if name.endswith(_CLASSES) and name.removesuffix(_CLASSES) + _SCORES in self
        )

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
                f"{self.model} answered no {head}{_CLASSES} with {head}{_SCORES}; "
                f"its outputs are {', '.join(self)}"
            )
        rows = zip(self[head + _CLASSES], self[head + _SCORES], strict=True)
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
                f"{self.model} answered labels for {len(self.heads)} heads"
                f"{', name one: ' if self.heads else ''}{', '.join(self.heads)}; "
                f"its outputs are {', '.join(self)}"
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
            f"{name}: {_dtype_name(array.dtype)} {list(array.shape)}"
            for name, array in self.items()
        )
        return f"<Prediction of {self.model} version {self.version}: {arrays}>"

    # Mapping would compare arrays by ==, which has no truth.
    __eq__ = object.__eq__
    __hash__ = object.__hash__


@dataclass(frozen=True)
class TensorSpec:
    """One input or output: its dtype, and its shape with None for any size (None: any rank)."""

    dtype: np.dtype[Any]
    shape: tuple[int | None, ...] | None

    @classmethod
    def from_proto(cls, info: TensorInfo) -> "TensorSpec":
        """Raises TensorError for a dtype that no array holds."""
        sizes = tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim)
        return cls(numpy_dtype(info.dtype), None if info.tensor_shape.unknown_rank else sizes)

    def __str__(self) -> str:
        if self.shape is None:
            return f"{_dtype_name(self.dtype)} [...]"
        sizes = ",".join("?" if size is None else str(size) for size in self.shape)
        return f"{_dtype_name(self.dtype)} [{sizes}]"


@dataclass(frozen=True)
class Signature:
    """One way to call a model: named inputs to named outputs."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]

    @classmethod
    def from_proto(cls, proto: SignatureDef) -> "Signature":
        return cls(
            *(
                {name: TensorSpec.from_proto(infos[name]) for name in sorted(infos)}
                for infos in (proto.inputs, proto.outputs)
            )
        )


@dataclass(frozen=True)
class ModelMetadata:
    """What a version of a model takes and gives, by signature name."""

    name: str
    version: int
    signatures: Mapping[str, Signature]

    @classmethod
    def from_proto(cls, name: str, version: int, protos: SignatureDefMap) -> "ModelMetadata":
        """Without what cannot be called: the initialisation op of a SavedModel, which is listed
        as a signature with no inputs, and signatures of tensors that no array holds."""
        signatures = {}
        for each, proto in sorted(protos.signature_def.items()):
            with suppress(TensorError):
                signatures[each] = Signature.from_proto(proto)
        return cls(
            name,
            version,
            {each: signature for each, signature in signatures.items() if signature.inputs},
        )


@dataclass(frozen=True)
class VersionStatus:
    """A version that the server knows: START, LOADING, AVAILABLE, UNLOADING or END, and the error
    that ended it, if one did."""

    version: int
    state: str
    error: str

    @classmethod
    def from_proto(cls, proto: ModelVersionStatus) -> "VersionStatus":
        return cls(
            proto.version, ModelVersionStatus.State.Name(proto.state), proto.status.error_message
        )


def _dtype_name(dtype: np.dtype[Any]) -> str:
    return "string" if dtype.kind == "O" else dtype.name

"""What a model expects: its signatures, and the one place where a request is held against them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from service.gateway.errors import InvalidInput, UnknownInput, UnknownSignature, did_you_mean
from sluice.wire.protos.tensorflow_pb2 import SignatureDef, TensorInfo
from sluice.wire.tensors import Array, numpy_dtype

DEFAULT_SIGNATURE = "serving_default"
CHANNELS = (1, 3, 4)  # what the last axis of an image can be


@dataclass(frozen=True)
class ModelSpec:
    """Which servable: a name, and at most one of a version number and a version label."""

    name: str
    version: int | None = None
    label: str | None = None


@dataclass(frozen=True)
class TensorSpec:
    """One input or output: its dtype, and its shape with None for any size (None: any rank)."""

    name: str
    dtype: np.dtype
    shape: tuple[int | None, ...] | None

    @classmethod
    def from_proto(cls, name: str, info: TensorInfo) -> "TensorSpec":
        sizes = tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim)
        return cls(name, numpy_dtype(info.dtype), None if info.tensor_shape.unknown_rank else sizes)

    def __str__(self) -> str:
        return f"{dtype_name(self.dtype)} {shape_text(self.shape)}"

    @property
    def is_string(self) -> bool:
        return self.dtype.kind == "O"

    def accepts(self, shape: tuple[int, ...]) -> bool:
        return self.shape is None or (
            len(shape) == len(self.shape)
            and all(want in (None, got) for want, got in zip(self.shape, shape, strict=True))
        )


@dataclass(frozen=True)
class Signature:
    """One way to call a model: named inputs to named outputs."""

    name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]

    @classmethod
    def from_proto(cls, name: str, proto: SignatureDef) -> "Signature":
        return cls(name, _specs(proto.inputs), _specs(proto.outputs))

    def validate(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """`inputs` in the signature's dtypes.

        Raises UnknownInput for names, InvalidInput for a dtype, a shape or a batch size that
        contradicts the signature. TensorFlow Serving checks names and dtypes only: it runs
        [1,2,2] through a signature of [N,2,3] (exchange "matrix, wrong inner size").
        """
        self._check_names(inputs)
        valid = {name: _valid(inputs[name], spec) for name, spec in self.inputs.items()}
        _check_batch(valid, self.inputs)
        return valid

    def _check_names(self, inputs: Mapping[str, Array]) -> None:
        for name in inputs:
            if name not in self.inputs:
                raise UnknownInput(
                    f'Signature "{self.name}" has no input "{name}"'
                    f"{did_you_mean(name, self.inputs)}"
                )
        missing = [name for name in self.inputs if name not in inputs]
        if missing:
            wanted = ", ".join(f'"{name}" ({self.inputs[name]})' for name in missing)
            raise UnknownInput(
                f'Signature "{self.name}" needs the missing input {wanted}; '
                f"got: {', '.join(sorted(inputs)) or 'none'}"
            )


class Signatures:
    """All signatures of one version of a model, as GetModelMetadata gives them."""

    def __init__(self, protos: Mapping[str, SignatureDef]) -> None:
        # The initialisation op of a SavedModel is listed among the signatures; nobody calls it.
        self._protos = {name: proto for name, proto in protos.items() if proto.inputs}
        self._parsed: dict[str, Signature] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._protos

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Signatures) and self._protos == other._protos

    __hash__ = None  # type: ignore[assignment]

    def names(self) -> list[str]:
        return sorted(self._protos)

    def get(self, name: str = DEFAULT_SIGNATURE) -> Signature:
        """Raises UnknownSignature, with the known names."""
        if name not in self._parsed:
            if name not in self._protos:
                raise UnknownSignature(
                    f'The model has no signature "{name}"{did_you_mean(name, self._protos)}'
                )
            self._parsed[name] = Signature.from_proto(name, self._protos[name])
        return self._parsed[name]


def dtype_name(dtype: np.dtype) -> str:
    return "string" if dtype.kind == "O" else dtype.name


def shape_text(shape: tuple[int | None, ...] | None) -> str:
    """`[N,28,28,1]`: N is the batch, ? any size."""
    if shape is None:
        return "[...]"
    sizes = ["?" if size is None else str(size) for size in shape]
    if sizes and sizes[0] == "?":
        sizes[0] = "N"
    return f"[{','.join(sizes)}]"


def _specs(protos: Mapping[str, TensorInfo]) -> dict[str, TensorSpec]:
    return {name: TensorSpec.from_proto(name, protos[name]) for name in sorted(protos)}


def _valid(array: Array, spec: TensorSpec) -> Array:
    if not spec.accepts(array.shape):
        raise InvalidInput(
            spec.name, str(spec), shape_text(array.shape), hint=_shape_hint(array.shape, spec)
        )
    if array.dtype == spec.dtype:
        return array
    if not _widens(array.dtype, spec.dtype):
        raise InvalidInput(spec.name, str(spec), f"{dtype_name(array.dtype)} values")
    return array.astype(spec.dtype)


def _widens(given: np.dtype, wanted: np.dtype) -> bool:
    """Whether every number of one dtype is one of the other; a bool or a string is no number.

    numpy itself lets anything become an object, which is our strings' dtype.
    """
    return not {given.kind, wanted.kind} & set("Ob") and np.can_cast(given, wanted, "safe")


def _shape_hint(got: tuple[int, ...], spec: TensorSpec) -> str:
    """What most likely went wrong, in a few words."""
    want = spec.shape
    if not want:
        return ""
    if spec.accepts((1, *got)):
        return "the batch axis is missing"
    if want[-1] in CHANNELS and spec.accepts((*got, want[-1])):
        return "the channel axis is missing"
    if len(got) == len(want) == 4 and spec.accepts((got[0], got[2], got[3], got[1])):
        return "channels come last here"
    if len(got) != len(want):
        return f"{len(want)} axes, not {len(got)}"
    axis = next(i for i, (w, g) in enumerate(zip(want, got, strict=True)) if w not in (None, g))
    return f"axis {axis} is {got[axis]}, not {want[axis]}"


def _check_batch(inputs: Mapping[str, Array], specs: Mapping[str, TensorSpec]) -> None:
    """Every input that is batched carries the same number of rows, and at least one."""
    batched = {
        name: array.shape[0]
        for name, array in inputs.items()
        if (shape := specs[name].shape) and shape[0] is None
    }
    for name, rows in batched.items():
        if rows == 0:
            raise InvalidInput(name, "at least one row", "an empty batch")
        first = next(iter(batched))
        if rows != batched[first]:
            raise InvalidInput(name, f"{batched[first]} rows, as in inputs.{first}", f"{rows} rows")

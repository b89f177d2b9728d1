"""What a model takes and gives, as GetModelMetadata tells it."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sluice.wire.contract import CLASS, EXPLAINED_BY
from sluice.wire.data_types import TensorError, numpy_dtype
from sluice.wire.protos.tensorflow_pb2 import SignatureDef, TensorInfo

CHANNELS = (1, 3, 4)  # what the last axis of an image can be


@dataclass(frozen=True)
class TensorSpec:
    """One input or output: its dtype, and its shape with None for any size (None: any rank).

    >>> TensorSpec("image", np.dtype("f4"), (None, 28, 28, 1))
    image: float32 [N,28,28,1]
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...] | None

    @classmethod
    def from_proto(cls, name: str, info: TensorInfo) -> "TensorSpec":
        """Raises TensorError for a dtype that no array holds."""
        sizes = tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim)
        known = info.HasField("tensor_shape") and not info.tensor_shape.unknown_rank
        return cls(name, numpy_dtype(info.dtype), sizes if known else None)

    def __str__(self) -> str:
        return f"{dtype_name(self.dtype)} {shape_text(self.shape)}"

    def __repr__(self) -> str:
        return f"{self.name}: {self}"

    @property
    def is_string(self) -> bool:
        return self.dtype.kind == "O"

    @cached_property
    def is_batched(self) -> bool:
        """Whether the first axis is open: one row for each instance."""
        return self.shape is not None and self.shape[:1] == (None,)

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of that shape fits.

        >>> spec = TensorSpec("image", np.dtype("f4"), (None, 28, 28, 1))
        >>> spec.accepts((7, 28, 28, 1)), spec.accepts((28, 28, 1))
        (True, False)
        """
        if self.shape is None:
            return True
        if self.is_batched and shape[1:] == self.shape[1:]:  # nearly every request's
            return bool(shape)
        if len(shape) != len(self.shape):
            return False
        for want, got in zip(self.shape, shape, strict=True):
            if want is not None and want != got:
                return False
        return True

    def hint(self, shape: tuple[int, ...]) -> str:
        """What most likely went wrong where a shape is not accepted, in a few words.

        >>> TensorSpec("image", np.dtype("f4"), (None, 28, 28, 1)).hint((28, 28, 1))
        'the batch axis is missing'
        """
        want = self.shape
        if not want:
            return ""
        if self.accepts((1, *shape)):
            return "the batch axis is missing"
        if want[-1] in CHANNELS and self.accepts((*shape, want[-1])):
            return "the channel axis is missing"
        if len(shape) == len(want) == 4 and self.accepts((shape[0], shape[2], shape[3], shape[1])):
            return "channels come last here"
        if len(shape) != len(want):
            return f"{len(want)} axes, not {len(shape)}"
        axis = next(
            i for i, (w, g) in enumerate(zip(want, shape, strict=True)) if w not in (None, g)
        )
        return f"axis {axis} is {shape[axis]}, not {want[axis]}"


@dataclass(frozen=True)
class Signature:
    """One way to call a model: named inputs to named outputs, each sorted by name.

    >>> image = TensorSpec("image", np.dtype("f4"), (None, 28, 28, 1))
    >>> label = TensorSpec("label", np.dtype("f4"), (None, 10))
    >>> digits = Signature("serving_default", {"image": image}, {"label": label})
    >>> print(digits.inputs["image"])
    float32 [N,28,28,1]
    """

    name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]

    @cached_property
    def is_batched(self) -> bool:
        """Whether every input and output has one row for each instance."""
        return all(spec.is_batched for spec in (*self.inputs.values(), *self.outputs.values()))

    @cached_property
    def class_inputs(self) -> tuple[str, ...]:
        """Of a signature that explains: the inputs that say which class is meant, one a head.

        >>> image = TensorSpec("image", np.dtype("f4"), (None, 28, 28, 1))
        >>> asked = TensorSpec("class", np.dtype("i4"), (None,))
        >>> why = Signature("explain", {"class": asked, "image": image}, {})
        >>> why.class_inputs, list(why.required)
        (('class',), ['image'])
        """
        if self.name not in EXPLAINED_BY.values():
            return ()
        return tuple(name for name, spec in self.inputs.items() if _names_class(spec))

    @cached_property
    def required(self) -> Mapping[str, TensorSpec]:
        """The inputs that a request has to bring: a class that is left out is the best one."""
        return {name: spec for name, spec in self.inputs.items() if name not in self.class_inputs}

    @classmethod
    def from_proto(cls, name: str, proto: SignatureDef) -> "Signature":
        """Raises TensorError for a dtype that no array holds."""
        return cls(name, _specs(proto.inputs), _specs(proto.outputs))


def callable_signatures(protos: Mapping[str, SignatureDef]) -> dict[str, Signature]:
    """The signatures that can be called, by name, sorted.

    GetModelMetadata lists others: the initialisation op of a SavedModel, which has no inputs, and
    signatures of tensors that no array holds (DT_RESOURCE, DT_VARIANT).

    >>> image = TensorInfo(dtype=1)
    >>> list(callable_signatures({"b": SignatureDef(inputs={"x": image}), "a": SignatureDef()}))
    ['b']
    """
    found = {}
    for name, proto in sorted(protos.items()):
        with suppress(TensorError):
            found[name] = Signature.from_proto(name, proto)
    return {name: signature for name, signature in found.items() if signature.inputs}


def dtype_name(dtype: np.dtype[Any]) -> str:
    """numpy's own name; `string` for objects, which hold bytes.

    >>> dtype_name(np.dtype("f4")), dtype_name(np.dtype(object))
    ('float32', 'string')
    """
    return "string" if dtype.kind == "O" else dtype.name


def shape_text(shape: tuple[int | None, ...] | None) -> str:
    """N is the batch, ? any size, `[...]` any rank.

    >>> shape_text((None, 28, None, 1)), shape_text((2, 10)), shape_text(None)
    ('[N,28,?,1]', '[2,10]', '[...]')
    """
    if shape is None:
        return "[...]"
    sizes = ["?" if size is None else str(size) for size in shape]
    if sizes and sizes[0] == "?":
        sizes[0] = "N"
    return f"[{','.join(sizes)}]"


def _names_class(spec: TensorSpec) -> bool:
    is_class = spec.name == CLASS or spec.name.endswith(f"_{CLASS}")
    return is_class and spec.dtype == np.int32 and spec.shape == (None,)


def _specs(protos: Mapping[str, TensorInfo]) -> dict[str, TensorSpec]:
    return {name: TensorSpec.from_proto(name, protos[name]) for name in sorted(protos)}

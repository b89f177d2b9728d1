"""What a model expects: its signatures, and the one place where a request is held against them."""

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from service.gateway.errors import InvalidInput, UnknownInput, UnknownSignature, did_you_mean
from sluice.wire.contract import DEFAULT_SIGNATURE, PIXELS_SIGNATURE
from sluice.wire.pixels import are_bytes, inputs_as_bytes
from sluice.wire.protos.tensorflow_pb2 import SignatureDef
from sluice.wire.signature import Signature, TensorSpec, callable_signatures, dtype_name, shape_text
from sluice.wire.tensors import Array


def validate(signature: Signature, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """`inputs` in the signature's dtypes.

    Raises UnknownInput for names, InvalidInput for a dtype, a shape or a batch size that
    contradicts the signature. TensorFlow Serving checks names and dtypes only: it runs
    [1,2,2] through a signature of [N,2,3] (exchange "matrix, wrong inner size").
    """
    if inputs.keys() != signature.inputs.keys():
        raise _wrong_names(signature, inputs)
    valid = {name: _valid(inputs[name], spec) for name, spec in signature.inputs.items()}
    _check_batch(valid, signature.inputs)
    return valid


def _wrong_names(signature: Signature, inputs: Mapping[str, Array]) -> UnknownInput:
    for name in inputs:
        if name not in signature.inputs:
            return UnknownInput(
                f'Signature "{signature.name}" has no input "{name}"'
                f"{did_you_mean(name, signature.inputs)}"
            )
    missing = [name for name in signature.inputs if name not in inputs]
    wanted = ", ".join(f'"{name}" ({signature.inputs[name]})' for name in missing)
    return UnknownInput(
        f'Signature "{signature.name}" needs the missing input {wanted}; '
        f"got: {', '.join(sorted(inputs)) or 'none'}"
    )


class Signatures:
    """The signatures of one version of a model that can be called, as GetModelMetadata gives
    them."""

    def __init__(self, protos: Mapping[str, SignatureDef]) -> None:
        self._known = callable_signatures(protos)

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Signatures) and self._known == other._known

    __hash__ = None  # type: ignore[assignment]

    def names(self) -> list[str]:
        return list(self._known)

    def get(self, name: str = DEFAULT_SIGNATURE) -> Signature:
        """Raises UnknownSignature, with the known names."""
        if name not in self._known:
            raise UnknownSignature(
                f'The model has no signature "{name}"{did_you_mean(name, self._known)}'
            )
        return self._known[name]

    def narrowest(self, signature: Signature, inputs: Mapping[str, Array]) -> Signature:
        """The one to ask what was asked of `signature`: `pixels`, where the model has it and takes
        these arrays as they are."""
        if signature.name != DEFAULT_SIGNATURE or not self._as_bytes:
            return signature
        narrow = self._known[PIXELS_SIGNATURE]
        return narrow if are_bytes(inputs, self._as_bytes, narrow) else signature

    @cached_property
    def _as_bytes(self) -> frozenset[str]:
        return inputs_as_bytes(self._known)


def _valid(array: Array, spec: TensorSpec) -> Array:
    if not spec.accepts(array.shape):
        raise InvalidInput(
            spec.name, str(spec), shape_text(array.shape), hint=spec.hint(array.shape)
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


def _check_batch(inputs: Mapping[str, Array], specs: Mapping[str, TensorSpec]) -> None:
    """Every input that is batched carries the same number of rows, and at least one."""
    first, first_rows = "", 0
    for name, array in inputs.items():
        if not specs[name].is_batched:
            continue
        rows = array.shape[0]
        if rows == 0:
            raise InvalidInput(name, "at least one row", "an empty batch")
        if not first:
            first, first_rows = name, rows
        elif rows != first_rows:
            raise InvalidInput(name, f"{first_rows} rows, as in inputs.{first}", f"{rows} rows")

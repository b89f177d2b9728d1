"""Open Inference Protocol v2: an infer request, JSON with raw tensors behind it, to a query.

The binary tensor extension: after the JSON, whose length a header gives, come the raw bytes
(sluice/wire/oip_tensors.py) of every input with a `binary_data_size`, in the order of the inputs.
"""

import math
from collections.abc import Container
from typing import Any

import numpy as np

from service.gateway.decode.flat_tensors import parse_flat_tensors
from service.gateway.decode.foreign import door
from service.gateway.decode.json_documents import check_values, parse_object
from service.gateway.decode.shapes import MAX_STRINGS, shape_fault
from service.gateway.decode.values import array_of, describe
from service.gateway.dtypes import OIP, not_carried
from service.gateway.errors import (
    InvalidInput,
    MalformedRequest,
    UnknownInput,
    did_you_mean,
    shown,
)
from service.gateway.query import OipQuery, RequestedOutput
from service.gateway.signatures import Signatures
from sluice.wire.contract import DEFAULT_SIGNATURE
from sluice.wire.oip_tensors import DATATYPES, JSON_LENGTH, RawTensorError, decode_raw
from sluice.wire.signature import Signature, TensorSpec
from sluice.wire.tensors import Array

_LENGTH_DIGITS = 18  # within an int64
MAX_TIMEOUT_US = 2**63 - 1


def parse_json_length(text: str | None) -> int | None:
    """The number in the header JSON_LENGTH, None where there is no header."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _LENGTH_DIGITS):
        raise MalformedRequest(
            f'{JSON_LENGTH} is "{shown(text)}"; expected how many bytes of the body are JSON'
        )
    return int(text)


@door("The infer request")
def decode_infer(body: bytes, json_length: int | None, signatures: Signatures) -> OipQuery:
    """The query of an infer body; `json_length` is the header's, None where there is none, and 0
    for a body that is nothing but the one input's raw bytes."""
    if json_length == 0:
        return _decode_raw(body, signatures)
    if json_length is not None and not 0 < json_length <= len(body):
        raise MalformedRequest(
            f"{JSON_LENGTH} is {json_length}, and the body has {len(body)} bytes"
        )
    document = _parse(body) if json_length is None else parse_object(body[:json_length])
    parameters = _parameters(document, "")
    signature = signatures.get(
        _string(parameters, "signature_name", "/parameters") or DEFAULT_SIGNATURE
    )
    return OipQuery(
        signature,
        _decode_inputs(document, memoryview(body)[json_length or len(body) :], signature),
        id=_string(document, "id", ""),
        outputs=_decode_outputs(document, signature),
        binary_outputs=bool(parameters.get("binary_data_output")),
        timeout_s=timeout_s(parameters.get("timeout", 0)),
    )


@door("The index request")
def decode_index(body: bytes) -> bool:
    """Whether the body of a repository index request asks for models that are ready alone."""
    if not body:
        return False
    ready = parse_object(body).get("ready", False)
    if not isinstance(ready, bool):
        raise MalformedRequest(f"/ready: expected true or false, got {describe(ready)}")
    return ready


def timeout_s(microseconds: Any) -> float | None:
    """The request's parameter `timeout` in seconds; Triton's clients send 0 for none."""
    if type(microseconds) is not int or not 0 <= microseconds <= MAX_TIMEOUT_US:
        raise MalformedRequest(
            f"/parameters/timeout: expected microseconds, 0 for none, got {describe(microseconds)}"
        )
    return microseconds / 1e6 if microseconds else None


def _parse(body: bytes) -> dict[str, Any]:
    check_values(body)
    return parse_flat_tensors(body) or parse_object(body)


def _decode_inputs(
    document: dict[str, Any], raw: memoryview, signature: Signature
) -> dict[str, Array]:
    inputs: dict[str, Array] = {}
    for index, tensor in enumerate(_objects(document, "inputs")):
        pointer = f"/inputs/{index}"
        spec = _spec(tensor, signature, pointer)
        check_unseen(spec.name, inputs, pointer)
        size = _parameters(tensor, pointer).get("binary_data_size")
        if size is None:
            inputs[spec.name] = _decode_json_tensor(tensor, spec, pointer)
            continue
        if type(size) is not int or not 0 <= size <= len(raw):
            raise InvalidInput(
                spec.name,
                f"a binary_data_size of 0 to {len(raw)}, the bytes that the body has left",
                describe(size),
                pointer,
            )
        inputs[spec.name] = raw_tensor(raw[:size], tensor.get("shape"), spec, pointer)
        raw = raw[size:]
    if len(raw):
        raise MalformedRequest(
            f"The body has {len(raw)} bytes more than its inputs' binary_data_size add up to"
        )
    return inputs


def _spec(tensor: dict[str, Any], signature: Signature, pointer: str) -> TensorSpec:
    return declared(
        str(_string(tensor, "name", pointer)), tensor.get("datatype"), signature, pointer
    )


def declared(name: str, datatype: Any, signature: Signature, pointer: str) -> TensorSpec:
    """The signature's spec for a tensor, in the dtype that the request declares."""
    if name not in signature.inputs:
        raise UnknownInput(
            f'{pointer}: signature "{signature.name}" has no input "{shown(name)}"'
            f"{did_you_mean(name, signature.inputs)}"
        )
    wanted = signature.inputs[name]
    dtype = DATATYPES.get(datatype) if isinstance(datatype, str) else None
    reason = not_carried(wanted.dtype, OIP)
    if reason and (dtype is None or not np.can_cast(dtype, wanted.dtype, "safe")):
        raise InvalidInput(name, f"another dialect: {reason}", describe(datatype), pointer)
    if dtype is None:
        raise InvalidInput(
            name, f"a datatype ({', '.join(DATATYPES)})", describe(datatype), pointer
        )
    return TensorSpec(name, dtype, wanted.shape)


def _decode_json_tensor(tensor: dict[str, Any], spec: TensorSpec, pointer: str) -> Array:
    data = tensor.get("data")
    if not isinstance(data, list | np.ndarray):
        raise InvalidInput(
            spec.name, "a list of elements in 'data', or a binary_data_size", "neither", pointer
        )
    array = array_of(data, spec, f"{pointer}/data") if isinstance(data, list) else data
    return shaped(array, tensor.get("shape"), spec, pointer)


def raw_tensor(raw: bytes | memoryview, shape: Any, spec: TensorSpec, pointer: str) -> Array:
    """The array of a tensor's raw bytes. Raises InvalidInput."""
    try:
        array = decode_raw(raw, spec.dtype, MAX_STRINGS)
    except RawTensorError as error:
        raise InvalidInput(spec.name, error.expected, error.got, pointer) from None
    return shaped(array, shape, spec, pointer)


def shaped(array: Array, shape: Any, spec: TensorSpec, pointer: str) -> Array:
    """`array` in the shape that the request declares, if it has that many elements."""
    check_count(array.size, shape, spec, pointer)
    return array.reshape(shape)


def check_count(count: int, shape: Any, spec: TensorSpec, pointer: str) -> None:
    """Raises InvalidInput where a tensor of so many elements cannot have `shape`."""
    if fault := shape_fault(shape):
        raise InvalidInput(spec.name, "a shape, a list of sizes", fault, pointer)
    if math.prod(shape) != count:
        raise InvalidInput(
            spec.name,
            f"{math.prod(shape)} elements for the shape {shown(str(shape))}",
            str(count),
            pointer,
        )


def _decode_raw(body: bytes, signatures: Signatures) -> OipQuery:
    """The default signature's one input as nothing but bytes; one size may be left open."""
    signature = signatures.get()
    if len(signature.inputs) != 1:
        raise UnknownInput(
            f'Signature "{signature.name}" has the inputs '
            f"{', '.join(signature.inputs)}; raw bytes fit a single one"
        )
    ((name, spec),) = signature.inputs.items()
    if spec.is_string:
        return OipQuery(signature, {name: np.array([body], object)})
    sizes = [-1 if size is None else size for size in spec.shape or (-1,)]
    try:
        array = np.frombuffer(body, spec.dtype).reshape(sizes)
    except ValueError:
        raise InvalidInput(name, f"the raw bytes of {spec}", f"{len(body)} bytes") from None
    return OipQuery(signature, {name: array}, binary_outputs=True)


def _decode_outputs(document: dict[str, Any], signature: Signature) -> tuple[RequestedOutput, ...]:
    if "outputs" not in document:
        return ()
    by_default = bool(_parameters(document, "").get("binary_data_output"))
    outputs: list[RequestedOutput] = []
    for index, output in enumerate(_objects(document, "outputs")):
        pointer = f"/outputs/{index}"
        name = str(_string(output, "name", pointer))
        check_output(name, signature, pointer)
        check_unseen(name, {seen.name for seen in outputs}, pointer)
        binary = _parameters(output, pointer).get("binary_data", by_default)
        outputs.append(RequestedOutput(name, bool(binary)))
    return tuple(outputs)


def check_output(name: str, signature: Signature, pointer: str) -> None:
    if name not in signature.outputs:
        raise UnknownInput(
            f'{pointer}: signature "{signature.name}" has no output "{shown(name)}"'
            f"{did_you_mean(name, signature.outputs)}"
        )


def check_unseen(name: str, seen: Container[str], pointer: str) -> None:
    if name in seen:
        raise MalformedRequest(f'{pointer}: "{name}" stands there twice; name each tensor once')


def _objects(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    values = document.get(key)
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise MalformedRequest(
            f"/{key}: expected a list of objects, each with the name, datatype, shape and data of "
            "a tensor; TensorFlow Serving's JSON goes to /v1/models/MODEL:predict"
        )
    return values


def _parameters(document: dict[str, Any], pointer: str) -> dict[str, Any]:
    parameters = document.get("parameters", {})
    if not isinstance(parameters, dict):
        raise MalformedRequest(f"{pointer}/parameters: expected an object")
    return parameters


def _string(document: dict[str, Any], key: str, pointer: str) -> str | None:
    value = document.get(key)
    if value is not None and not isinstance(value, str):
        raise MalformedRequest(f"{pointer}/{key}: expected a string, got {describe(value)}")
    return value

"""Predict: a request's tensors -> a run -> a reply. Pure but for what TensorFlow then does."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from service.modelserver.errors import FailedPrecondition, InvalidArgument
from service.modelserver.servable import Run, Tensors
from sluice.wire.contract import DEFAULT_SIGNATURE
from sluice.wire.data_types import TensorError, data_type_name, data_type_of
from sluice.wire.large_tensors import Contents, cut
from sluice.wire.protos.serving_pb2 import ModelSpec, PredictRequest, PredictResponse
from sluice.wire.protos.tensorflow_pb2 import SignatureDef, TensorInfo, TensorProto
from sluice.wire.tensors import Array, decode_tensor, encode_tensor

SignatureDefs = Mapping[str, SignatureDef]


class PredictParts(NamedTuple):
    """A PredictRequest, and the contents of its large tensors, which it does not hold itself."""

    request: PredictRequest
    contents: Contents

    @property
    def model_spec(self) -> ModelSpec:
        return self.request.model_spec


def parse_predict(raw: bytes) -> PredictParts:
    """Raises DecodeError."""
    rest, contents = cut(raw, PredictRequest.INPUTS_FIELD_NUMBER)
    return PredictParts(PredictRequest.FromString(rest), contents)


class PredictPlan:
    """One Predict held against a version's signatures.

    Raises FailedPrecondition for a signature that is not there and InvalidArgument for inputs or
    an output filter that do not fit it; shapes are the servable's affair.
    `content` puts the elements of the reply into tensor_content instead of typed values;
    `contents` are those that were cut out of the request.
    """

    def __init__(
        self,
        signatures: SignatureDefs,
        request: PredictRequest,
        content: bool = False,
        contents: Contents | None = None,
    ) -> None:
        self._model, self._content = request.model_spec.name, content
        self._signature_name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        signature = signatures.get(self._signature_name)
        if signature is None:
            raise FailedPrecondition(f'Serving signature key "{self._signature_name}" not found.')
        self._outputs = {
            name: signature.outputs[name].name
            for name in _output_names(signature, request.output_filter)
        }
        self.run = Run(
            _decode_inputs(signature, request.inputs, contents or {}),
            # Two outputs may be one tensor; in one order, they share a callable (servable.py).
            tuple(sorted(set(self._outputs.values()))),
        )

    def respond(self, tensors: Tensors, version: int) -> PredictResponse:
        response = PredictResponse()
        for name, tensor_name in self._outputs.items():
            response.outputs[name].MergeFrom(encode_tensor(tensors[tensor_name], self._content))
        fill_spec(response.model_spec, self._model, version, self._signature_name)
        return response


def fill_spec(spec: ModelSpec, name: str, version: int, signature_name: str = "") -> None:
    """What every reply says of the model that gave it."""
    spec.name, spec.version.value, spec.signature_name = name, version, signature_name


def _decode_inputs(
    signature: SignatureDef, inputs: Mapping[str, TensorProto], contents: Contents
) -> dict[str, Array]:
    """The feeds by tensor name, in the signature's order of names."""
    _check_names(signature, inputs)
    feeds = {}
    for name in sorted(signature.inputs):
        proto = inputs[name] if name in inputs else signature.defaults[name]
        feeds[signature.inputs[name].name] = _decode_input(
            name, proto, contents.get(name), signature.inputs[name]
        )
    return feeds


def _decode_input(
    name: str, proto: TensorProto, content: memoryview | None, info: TensorInfo
) -> Array:
    try:
        array = decode_tensor(proto, content=content)
    except TensorError as error:
        raise InvalidArgument(f'tensor parsing error: input "{name}": {error}') from error
    if info.dtype not in (proto.dtype, 0):  # 0: the signature does not say
        raise InvalidArgument(
            f'input "{name}" is expected to be {data_type_name(info.dtype)} but '
            f"{data_type_name(data_type_of(array.dtype))} is provided"
        )
    return array


def _check_names(signature: SignatureDef, inputs: Mapping[str, TensorProto]) -> None:
    sent, wanted = set(inputs), set(signature.inputs)
    missing = wanted - sent - set(signature.defaults)
    if missing or sent - wanted:
        raise InvalidArgument(
            f"input size does not match signature: {len(sent)}!={len(wanted)} "
            f"len({_braces(sent)}) != len({_braces(wanted)}). "
            f"Sent extra: {_braces(sent - wanted)}. Missing but required: {_braces(missing)}."
        )


def _output_names(signature: SignatureDef, output_filter: Sequence[str]) -> list[str]:
    for position, name in enumerate(output_filter):
        if name not in signature.outputs:
            raise InvalidArgument(
                f"output tensor alias not found in signature: {name} Outputs "
                f"expected to be in the set {_braces(signature.outputs)}."
            )
        if name in output_filter[:position]:
            raise InvalidArgument(f"duplicate output tensor alias: {name}")
    return list(output_filter) or sorted(signature.outputs)


def _braces(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"

"""What is written of a captured request: its PredictionLog, serialized, less what is left out.

The contents of a small request are soon copied. What stands around them is dearer to make, and the
same for all of one form that a version answers in one second, so it is made once for those.
"""

from collections.abc import Iterator, Mapping, MutableMapping
from functools import lru_cache
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from service.gateway.model_server import CLASSIFY, MULTI_INFERENCE, REGRESS, request_head
from service.gateway.patterns import named_by
from service.gateway.traffic import Inputs, Kind
from sluice.wire.large_tensors import Buffer, before_content
from sluice.wire.model_ref import ModelRef
from sluice.wire.prediction_logs import (
    CLASSIFY_LOG,
    MULTI_INFERENCE_LOG,
    PREDICT_LOG,
    REGRESS_LOG,
    encode_log,
    log_about,
    log_head,
)
from sluice.wire.protos import serving_pb2 as serving
from sluice.wire.protos.tensorflow_pb2 import Example, SequenceExample
from sluice.wire.tensors import Array, encode_content

# What is passed on as it came: the log of each method, and its message.
FORWARDED: Mapping[str, tuple[str, Any]] = {
    CLASSIFY: (CLASSIFY_LOG, serving.ClassificationRequest),
    REGRESS: (REGRESS_LOG, serving.RegressionRequest),
    MULTI_INFERENCE: (MULTI_INFERENCE_LOG, serving.MultiInferenceRequest),
}

_about = lru_cache(64)(log_about)
_INPUTS = serving.PredictRequest.INPUTS_FIELD_NUMBER
_Form = tuple[str, np.dtype[Any], tuple[int, ...], int]  # an input's name, dtype, shape and bytes


class Records:
    """Those of one worker, made in two of its threads; `leave_out` has the patterns of what is left
    out."""

    def __init__(self, leave_out: str) -> None:
        self._leaves_out, self._leaves_some_out = named_by(leave_out), bool(leave_out.strip())
        self._around = lru_cache(64)(_around)

    def forget(self) -> None:
        """What requests that are written by now had in common: names in it come from clients."""
        self._around.cache_clear()

    def answered(self, kind: Kind, inputs: Inputs, version: int, seconds: int) -> bytes:
        """Of inputs that a version has answered, `seconds` after 1970 began."""
        if self._leaves_some_out:
            kept = {name: each for name, each in inputs.items() if not self._leaves_out(name)}
            inputs = {name: self._without_hidden(each) for name, each in kept.items()}
        forms: list[_Form] = []
        pieces: list[Buffer] = [b""]
        for name, array in inputs.items():
            content = encode_content(array)
            forms.append((name, array.dtype, array.shape, len(content)))
            pieces += content, b""
        model, signature, outputs, _ = kind
        pieces[::2] = self._around(model.name, version, signature, outputs, tuple(forms), seconds)
        return b"".join(pieces)

    def forwarded(self, method: str, request: bytes, model: ModelRef, seconds: int) -> bytes:
        """Of a serialized request of "/SERVICE/METHOD", one of FORWARDED."""
        kind, message = FORWARDED[method]
        return encode_log(kind, self._without_features(message, request), _about(model, seconds))

    def _without_hidden(self, array: Array) -> Array:
        """Strings may be Examples, or SequenceExamples, serialized: a Predict may ask what a
        Classify does."""
        if not array.dtype.hasobject:
            return array
        texts = [self._example_without(text) for text in array.flat]
        return np.array(texts, array.dtype).reshape(array.shape)

    def _example_without(self, text: bytes) -> bytes:
        """As it came, unless it is one that has what is left out."""
        try:
            example = SequenceExample.FromString(text)
        except DecodeError:
            return text
        features, lists = example.context.feature, example.feature_lists.feature_list
        stripped = self._strip(features), self._strip(lists)
        return example.SerializeToString() if any(stripped) else text

    def _strip(self, named: MutableMapping[str, Any]) -> bool:
        """Whether anything was in it that is left out."""
        names = [name for name in named if self._leaves_out(name)]
        for name in names:
            del named[name]
        return bool(names)

    def _without_features(self, kind: Any, request: bytes) -> bytes:
        message = kind.FromString(request)
        for example in _examples_of(message.input):
            self._strip(example.features.feature)
        serialized: bytes = message.SerializeToString()
        return serialized


def _around(
    name: str,
    version: int,
    signature: str,
    outputs: tuple[str, ...],
    forms: tuple[_Form, ...],
    seconds: int,
) -> list[bytes]:
    """What stands before, between and behind the contents of the inputs."""
    model = ModelRef(name, version)
    head = request_head(model, signature, outputs)
    around = [*(before_content(_INPUTS, *form) for form in forms), b""]
    size = len(head) + sum(map(len, around)) + sum(form[-1] for form in forms)
    around[0] = log_head(PREDICT_LOG, size, _about(model, seconds)) + head + around[0]
    return around


def _examples_of(given: serving.Input) -> Iterator[Example]:
    if given.WhichOneof("kind") == "example_list":
        yield from given.example_list.examples
    else:
        yield given.example_list_with_context.context
        yield from given.example_list_with_context.examples

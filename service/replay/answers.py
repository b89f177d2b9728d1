"""What a version has answered, whatever it was asked by: arrays by name, as Predict gives them."""

from typing import Any

import numpy as np

from sluice.wire.contract import CLASSES_SUFFIX, SCORES_SUFFIX
from sluice.wire.model_ref import ModelRef
from sluice.wire.protos import serving_pb2 as serving
from sluice.wire.tensors import Array, decode_tensor, string_array


def outputs_of(answer: Any) -> dict[str, Array]:
    """The arrays of a response of Predict, Classify, Regress or MultiInference.

    >>> answer = serving.RegressionResponse()
    >>> answer.result.regressions.add(value=0.5)
    value: 0.5
    <BLANKLINE>
    >>> outputs_of(answer)
    {'value': array([0.5], dtype=float32)}
    """
    if isinstance(answer, serving.PredictResponse):
        return {name: decode_tensor(tensor) for name, tensor in sorted(answer.outputs.items())}
    if isinstance(answer, serving.ClassificationResponse):
        return _classes("label", answer.result)
    if isinstance(answer, serving.RegressionResponse):
        return _values("value", answer.result)
    outputs: dict[str, Array] = {}
    for result in answer.results:
        name = result.model_spec.signature_name
        if result.WhichOneof("result") == "classification_result":
            outputs |= _classes(name, result.classification_result)
        else:
            outputs |= _values(name, result.regression_result)
    return outputs


def version_of(answer: Any) -> int | None:
    """The version that says it has answered."""
    specs = [each.model_spec for each in getattr(answer, "results", [answer])]
    return ModelRef.from_proto(specs[0]).version if specs else None


def _classes(head: str, result: serving.ClassificationResult) -> dict[str, Array]:
    """As many classes as every row has; of a model without labels their scores, and of one without
    scores the labels, in the order that it gives them."""
    rows = [each.classes for each in result.classifications]
    count = min(map(len, rows), default=0)
    given = [one for row in rows for one in row[:count]]
    labels, scores = [one.label.encode() for one in given], [one.score for one in given]
    shape = (len(rows), count)
    classes = {f"{head}{CLASSES_SUFFIX}": string_array(labels).reshape(shape)}
    scored = {f"{head}{SCORES_SUFFIX}": np.array(scores, np.float32).reshape(shape)}
    if not any(labels):
        return scored
    return classes | scored if any(scores) else classes


def _values(name: str, result: serving.RegressionResult) -> dict[str, Array]:
    return {name: np.array([each.value for each in result.regressions], np.float32)}

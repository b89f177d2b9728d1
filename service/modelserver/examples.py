"""Classify, Regress and MultiInference: tf.Examples -> a run -> labels, scores and values.

The checks and their order are TensorFlow Serving's (its classifier, regressor and multi-inference
sources; the rows "classify…", "regress…" and "multi inference…" show them).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from service.modelserver.errors import InvalidArgument, Unimplemented
from service.modelserver.predict import SignatureDefs, fill_spec
from service.modelserver.servable import Run, Tensors
from sluice.wire.contract import CLASSIFY_METHOD, DEFAULT_SIGNATURE, REGRESS_METHOD
from sluice.wire.protos.serving_pb2 import (
    ClassificationRequest,
    ClassificationResponse,
    ClassificationResult,
    Classifications,
    InferenceTask,
    Input,
    ModelSpec,
    MultiInferenceRequest,
    MultiInferenceResponse,
    Regression,
    RegressionRequest,
    RegressionResponse,
    RegressionResult,
)
from sluice.wire.protos.tensorflow_pb2 import SignatureDef
from sluice.wire.tensors import Array


class Classifier(NamedTuple):
    """A signature used for classification: its tensors' names, of which one may be missing."""

    examples: str
    classes: str | None
    scores: str | None

    @property
    def fetches(self) -> list[str]:
        return [name for name in (self.classes, self.scores) if name is not None]

    def result(self, tensors: Tensors, count: int) -> ClassificationResult:
        """Raises InvalidArgument where the outputs are not [count, classes] strings and floats."""
        classes = _matrix("classes", "DT_STRING", self.classes, tensors, count)
        scores = _matrix("scores", "DT_FLOAT", self.scores, tensors, count)
        _check_widths(classes, scores)
        return ClassificationResult(
            classifications=[
                _classifications(labels, values)
                for labels, values in zip(_rows(classes, count), _rows(scores, count), strict=True)
            ]
        )


class Regressor(NamedTuple):
    """A signature used for regression: its tensors' names."""

    examples: str
    outputs: str

    @property
    def fetches(self) -> list[str]:
        return [self.outputs]

    def result(self, tensors: Tensors, count: int) -> RegressionResult:
        """Raises InvalidArgument where the output is not [count] or [count, 1] floats."""
        values = tensors[self.outputs]
        if values.dtype != np.float32 or values.shape not in ((count,), (count, 1)):
            raise InvalidArgument(
                f"Expected output Tensor of DT_FLOAT and shape [{count}] or [{count}, 1] but got "
                f"{values.dtype} {list(values.shape)}"
            )
        return RegressionResult(
            regressions=[Regression(value=value) for value in values.ravel().tolist()]
        )


class ClassifyPlan:
    """One Classify held against a version's signatures; raises InvalidArgument."""

    def __init__(self, signatures: SignatureDefs, request: ClassificationRequest) -> None:
        self._spec = request.model_spec
        self._classifier = find_classifier(signatures, request.model_spec)
        self._examples = serialize_examples(request.input)
        self.run = _run([self._classifier], self._examples)

    def respond(self, tensors: Tensors, version: int) -> ClassificationResponse:
        result = self._classifier.result(tensors, len(self._examples))
        response = ClassificationResponse(result=result)
        _fill_spec(response.model_spec, self._spec, version)
        return response


class RegressPlan:
    """One Regress held against a version's signatures; raises InvalidArgument."""

    def __init__(self, signatures: SignatureDefs, request: RegressionRequest) -> None:
        self._spec = request.model_spec
        self._regressor = find_regressor(signatures, request.model_spec)
        self._examples = serialize_examples(request.input)
        self.run = _run([self._regressor], self._examples)

    def respond(self, tensors: Tensors, version: int) -> RegressionResponse:
        result = self._regressor.result(tensors, len(self._examples))
        response = RegressionResponse(result=result)
        _fill_spec(response.model_spec, self._spec, version)
        return response


class MultiInferencePlan:
    """Several classifications and regressions of the same examples, in one run."""

    def __init__(self, signatures: SignatureDefs, request: MultiInferenceRequest) -> None:
        self._specs = [task.model_spec for task in request.tasks]
        self._tasks = find_tasks(signatures, request.tasks)
        self._examples = serialize_examples(request.input)
        self.run = _run(self._tasks, self._examples)

    def respond(self, tensors: Tensors, version: int) -> MultiInferenceResponse:
        response = MultiInferenceResponse()
        for spec, task in zip(self._specs, self._tasks, strict=True):
            result = response.results.add()
            _fill_spec(result.model_spec, spec, version)
            if isinstance(task, Classifier):
                found = task.result(tensors, len(self._examples))
                result.classification_result.MergeFrom(found)
            else:
                result.regression_result.MergeFrom(task.result(tensors, len(self._examples)))
        return response


def find_classifier(signatures: SignatureDefs, spec: ModelSpec) -> Classifier:
    """Raises InvalidArgument for a signature that is missing or cannot classify."""
    signature = _find(signatures, spec)
    examples = _only_input(signature, "classification")
    if len(signature.outputs) not in (1, 2):
        raise InvalidArgument(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    outputs = {
        name: signature.outputs[name].name
        for name in ("classes", "scores")
        if name in signature.outputs
    }
    if not outputs:
        raise InvalidArgument(
            "Expected classification signature outputs to contain at least one "
            f'of "classes" or "scores". Signature was: {signature}'
        )
    return Classifier(examples, outputs.get("classes"), outputs.get("scores"))


def find_regressor(signatures: SignatureDefs, spec: ModelSpec) -> Regressor:
    """Raises InvalidArgument for a signature that is missing or cannot regress."""
    signature = _find(signatures, spec)
    if len(signature.outputs) != 1:
        raise InvalidArgument("Expected one output Tensor.")
    examples = _only_input(signature, "regression")
    if "outputs" not in signature.outputs:
        raise InvalidArgument(f"No regression outputs found in SignatureDef: {signature}")
    return Regressor(examples, signature.outputs["outputs"].name)


def find_tasks(
    signatures: SignatureDefs, tasks: Sequence[InferenceTask]
) -> list[Classifier | Regressor]:
    """One a task. Raises InvalidArgument for tasks that do not go together."""
    found: list[Classifier | Regressor] = []
    names: set[str] = set()
    for task in tasks:
        if task.model_spec.name != tasks[0].model_spec.name:
            raise InvalidArgument(
                "All ModelSpecs in a MultiInferenceRequest must access the same model name."
            )
        name = _signature_name(task.model_spec)
        if name in names:
            raise InvalidArgument(f"Duplicate evaluation of signature: {name}")
        names.add(name)
        found.append(_find_task(signatures, task))
    return found


def serialize_examples(source: Input) -> Array:
    """The examples as TensorFlow parses them: DT_STRING [N]. Raises InvalidArgument for none.

    A context is put in front of each example: concatenated messages merge.
    """
    listed = source.example_list_with_context
    context = listed.context.SerializeToString() if listed.HasField("context") else b""
    examples = source.example_list.examples or listed.examples
    if not examples:
        raise InvalidArgument("Input is empty.")
    serialized = np.empty(len(examples), object)  # np.array would make "S", and lose trailing zeros
    serialized[:] = [context + example.SerializeToString() for example in examples]
    return serialized


def _run(tasks: Sequence[Classifier | Regressor], examples: Array) -> Run:
    """One run for all the tasks; each one's input gets the same examples ("multi inference")."""
    feeds = sorted({task.examples for task in tasks})
    fetches = sorted({name for task in tasks for name in task.fetches})
    return Run(dict.fromkeys(feeds, examples), tuple(fetches))


def _fill_spec(spec: ModelSpec, asked: ModelSpec, version: int) -> None:
    fill_spec(spec, asked.name, version, _signature_name(asked))


def _signature_name(spec: ModelSpec) -> str:
    return spec.signature_name or DEFAULT_SIGNATURE


def _find(signatures: SignatureDefs, spec: ModelSpec) -> SignatureDef:
    signature = signatures.get(_signature_name(spec))
    if signature is None:
        raise InvalidArgument(f"No signature was found with the name: {_signature_name(spec)}")
    return signature


def _find_task(signatures: SignatureDefs, task: InferenceTask) -> Classifier | Regressor:
    if task.method_name == CLASSIFY_METHOD:
        return find_classifier(signatures, task.model_spec)
    if task.method_name == REGRESS_METHOD:
        return find_regressor(signatures, task.model_spec)
    raise Unimplemented(f"Unsupported signature method_name: {task.method_name}")


def _only_input(signature: SignatureDef, purpose: str) -> str:
    if len(signature.inputs) != 1:
        raise InvalidArgument("Expected one input Tensor.")
    if "inputs" not in signature.inputs:
        raise InvalidArgument(f"No {purpose} inputs found in SignatureDef: {signature}")
    return signature.inputs["inputs"].name


def _matrix(what: str, dtype: str, name: str | None, tensors: Tensors, count: int) -> Array | None:
    """The [count, classes] output, or None where the signature has not got it."""
    if name is None:
        return None
    array = tensors[name]
    if array.ndim != 2:
        raise InvalidArgument(
            f"Expected Tensor shape: [batch_size num_classes] but got {list(array.shape)}"
        )
    if array.dtype != (object if dtype == "DT_STRING" else np.float32):
        raise InvalidArgument(f"Expected {what} Tensor of {dtype}. Got: {array.dtype}")
    if len(array) != count:
        raise InvalidArgument(f"Expected {what} output batch size of {count}. Got: {len(array)}")
    return array


def _check_widths(classes: Array | None, scores: Array | None) -> None:
    if classes is not None and scores is not None and classes.shape[1] != scores.shape[1]:
        raise InvalidArgument(
            "Tensors class and score should match in dim_size(1). Got "
            f"{classes.shape[1]} vs. {scores.shape[1]}"
        )


def _rows(matrix: Array | None, count: int) -> list[list[Any] | None]:
    return [None] * count if matrix is None else matrix.tolist()


def _classifications(labels: list[bytes] | None, scores: list[float] | None) -> Classifications:
    classifications = Classifications()
    for label in labels or ():  # a proto3 string is UTF-8, whatever the model's bytes are
        classifications.classes.add(label=label.decode("utf-8", "replace"))
    for position, score in enumerate(scores or ()):
        entry = classifications.classes[position] if labels else classifications.classes.add()
        entry.score = score
    return classifications

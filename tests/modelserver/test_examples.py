"""Classify, Regress and MultiInference: what a signature must have and give, checked in order."""

import numpy as np
import pytest

from service.modelserver.errors import InvalidArgument, Unimplemented
from service.modelserver.examples import (
    ClassifyPlan,
    MultiInferencePlan,
    RegressPlan,
)
from sluice.wire.contract import CLASSIFY_METHOD as CLASSIFY
from sluice.wire.contract import REGRESS_METHOD as REGRESS
from sluice.wire.protos.serving_pb2 import (
    ClassificationRequest,
    Input,
    MultiInferenceRequest,
    RegressionRequest,
)
from sluice.wire.protos.tensorflow_pb2 import Example, SignatureDef, TensorInfo


def signature(inputs, outputs):
    return SignatureDef(
        inputs={name: TensorInfo(name=f"{name}:0") for name in inputs},
        outputs={name: TensorInfo(name=f"{name}:0") for name in outputs},
    )


SIGNATURES = {
    "both": signature(["inputs"], ["classes", "scores"]),
    "labels": signature(["inputs"], ["classes"]),
    "scores": signature(["inputs"], ["scores"]),
    "values": signature(["inputs"], ["outputs"]),
    "other input": signature(["x"], ["classes", "outputs"]),
    "two inputs": signature(["inputs", "x"], ["outputs"]),
    "three outputs": signature(["inputs"], ["classes", "scores", "x"]),
    "other output": signature(["inputs"], ["x"]),
}
TWO = Input(example_list={"examples": [Example(), Example()]})


def words(*rows):
    array = np.empty((len(rows), len(rows[0])), object)
    array[:] = rows
    return array


def classify(name, tensors):
    spec = {"name": "m", "signature_name": name}
    plan = ClassifyPlan(SIGNATURES, ClassificationRequest(model_spec=spec, input=TWO))
    response = plan.respond(tensors, version=1)
    return [
        [(entry.label, entry.score) for entry in row.classes]
        for row in response.result.classifications
    ]


def regress(name, tensors):
    spec = {"name": "m", "signature_name": name}
    plan = RegressPlan(SIGNATURES, RegressionRequest(model_spec=spec, input=TWO))
    return [entry.value for entry in plan.respond(tensors, version=1).result.regressions]


CLASSES, SCORES = words([b"a", b"b"], [b"c", b"\xff"]), np.array([[1, 2], [3, 4]], "f4")


@pytest.mark.parametrize(
    ("name", "tensors", "expected"),
    [
        (
            "both",
            {"classes:0": CLASSES, "scores:0": SCORES},
            [[("a", 1), ("b", 2)], [("c", 3), ("\N{REPLACEMENT CHARACTER}", 4)]],
        ),
        (
            "labels",
            {"classes:0": CLASSES},
            [[("a", 0), ("b", 0)], [("c", 0), ("\N{REPLACEMENT CHARACTER}", 0)]],
        ),
        ("scores", {"scores:0": SCORES}, [[("", 1), ("", 2)], [("", 3), ("", 4)]]),
    ],
)
def test_labels_and_scores_are_paired(name, tensors, expected):
    assert classify(name, tensors) == expected


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_values_are_one_an_example(shape):
    assert regress("values", {"outputs:0": np.array([1, 2], "f4").reshape(shape)}) == [1, 2]


@pytest.mark.parametrize(
    ("name", "tensors", "message"),
    [
        ("nope", {}, "No signature was found with the name: nope"),
        ("two inputs", {}, "Expected one input Tensor"),
        ("three outputs", {}, "Expected one or two output Tensors, found 3"),
        ("other input", {}, "No classification inputs found in SignatureDef"),
        ("other output", {}, 'at least one of "classes" or "scores"'),
        ("scores", {"scores:0": SCORES[0]}, r"\[batch_size num_classes\] but got \[2\]"),
        ("scores", {"scores:0": SCORES.astype("f8")}, "scores Tensor of DT_FLOAT. Got: float64"),
        ("labels", {"classes:0": SCORES}, "classes Tensor of DT_STRING. Got: float32"),
        ("scores", {"scores:0": SCORES[:1]}, "scores output batch size of 2. Got: 1"),
        ("both", {"classes:0": CLASSES, "scores:0": SCORES[:, :1]}, "Got 2 vs. 1"),
    ],
)
def test_what_cannot_classify_says_why(name, tensors, message):
    with pytest.raises(InvalidArgument, match=message):
        classify(name, tensors)


@pytest.mark.parametrize(
    ("name", "tensors", "message"),
    [
        ("nope", {}, "No signature was found with the name: nope"),
        ("both", {}, "Expected one output Tensor"),
        ("two inputs", {}, "Expected one input Tensor"),
        ("other output", {}, "No regression outputs found in SignatureDef"),
        ("values", {"outputs:0": SCORES}, r"shape \[2\] or \[2, 1\] but got float32 \[2, 2\]"),
        ("values", {"outputs:0": SCORES[0].astype("f8")}, "but got float64"),
    ],
)
def test_what_cannot_regress_says_why(name, tensors, message):
    with pytest.raises(InvalidArgument, match=message):
        regress(name, tensors)


def multi(*tasks, examples=TWO):
    request = MultiInferenceRequest(input=examples)
    for name, method, model in tasks:
        request.tasks.add(model_spec={"name": model, "signature_name": name}, method_name=method)
    return MultiInferencePlan(SIGNATURES, request)


def test_several_tasks_are_one_run():
    plan = multi(("both", CLASSIFY, "m"), ("values", REGRESS, "m"))
    assert list(plan.run.feeds) == ["inputs:0"]
    assert plan.run.fetches == ("classes:0", "outputs:0", "scores:0")


@pytest.mark.parametrize(
    ("tasks", "error", "message"),
    [
        (
            [("both", CLASSIFY, "m"), ("values", REGRESS, "n")],
            InvalidArgument,
            "same model name",
        ),
        (
            [("both", CLASSIFY, "m"), ("both", CLASSIFY, "m")],
            InvalidArgument,
            "Duplicate .*: both",
        ),
        ([("both", "guess", "m")], Unimplemented, "Unsupported signature method_name: guess"),
    ],
)
def test_tasks_that_do_not_go_together_are_refused(tasks, error, message):
    with pytest.raises(error, match=message):
        multi(*tasks)


@pytest.mark.parametrize(
    "examples",
    [Input(), Input(example_list={}), Input(example_list_with_context={"context": Example()})],
)
def test_no_examples_are_refused(examples):
    with pytest.raises(InvalidArgument, match="Input is empty"):
        multi(("both", CLASSIFY, "m"), examples=examples)


def test_a_context_is_merged_into_each_example():
    def feature(name, value):
        return Example(features={"feature": {name: {"int64_list": {"value": [value]}}}})

    plan = multi(
        ("both", CLASSIFY, "m"),
        examples=Input(
            example_list_with_context={
                "examples": [feature("a", 1), feature("b", 2)],
                "context": feature("c", 3),
            }
        ),
    )
    merged = [Example.FromString(raw) for raw in plan.run.feeds["inputs:0"]]
    assert [sorted(example.features.feature) for example in merged] == [["a", "c"], ["b", "c"]]

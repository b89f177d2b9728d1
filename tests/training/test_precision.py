"""A model that trained in half precision is, once trained, the float32 model of its weights."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2

import models
import training
from training.fitting.precision import to_float32

# Between them every layer that our families have, and layers inside layers of each kind.
FAMILIES = {
    "resnet50": {"depths": (1,), "width": 2, "stem": "3x3"},
    "unet": {"width": 2, "depth": 1},
    "vit_b16": {"patch": 4, "width": 8, "depth": 1, "heads": 2, "mlp_width": 8},
    "digit_sum": {"width": 2},
    "gan": {"latent": 5, "width": 2},
}
HALF = {types_pb2.DT_HALF, types_pb2.DT_BFLOAT16}


def build(family: str, policy: str) -> keras.Model:
    keras.utils.set_random_seed(0)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        return models.build(family, (8, 8, 1), 3, **FAMILIES[family])
    finally:
        keras.config.set_dtype_policy(before)


def answers(model: keras.Model) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    inputs = [
        rng.uniform(0, 3, (4, *tensor.shape[1:])).astype(tensor.dtype) for tensor in model.inputs
    ]
    return [
        np.asarray(head) for head in tf.nest.flatten(model(inputs if inputs[1:] else inputs[0]))
    ]


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_it_answers_to_the_bit_as_if_built_in_float32(family, policy):
    plain, half = build(family, "float32"), build(family, policy)
    parts = [*zip(models.parts(plain).values(), models.parts(half).values(), strict=True)]
    for one, other in parts:
        assert any((a != b).any() for a, b in zip(answers(one), answers(other), strict=True))
    to_float32(half)
    for one, other in parts:
        for expected, answered in zip(answers(one), answers(other), strict=True):
            np.testing.assert_array_equal(answered, expected)


def half_nodes(version) -> list[str]:
    """The nodes of a published graph that take or give half precision."""
    proto = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes())
    [graph] = [each.graph_def for each in proto.meta_graphs]
    nodes = [*graph.node, *(node for each in graph.library.function for node in each.node_def)]
    return [node.name for node in nodes if HALF & types(node)]


def types(node) -> set[int]:
    attributes = node.attr.values()
    return {each.type for each in attributes} | {
        number for each in attributes for number in each.list.type
    }


@pytest.mark.parametrize(
    "precision", ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.slow)]
)
def test_it_trains_in_half_precision_and_publishes_float32_alone(tmp_path, precision):
    versions = [
        training.train(
            "digits",
            model_repository=tmp_path,
            epochs=1,
            name=asked,
            settings={"limit": "200", "precision": asked},
        )
        for asked in ("float32", precision)
    ]
    losses = [
        json.loads((version / "metrics.json").read_text())["curves"]["loss"][0]
        for version in versions
    ]
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.01)
    assert half_nodes(versions[1]) == []

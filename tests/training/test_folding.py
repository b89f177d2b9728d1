"""Normalisations folded into the layers before them: the same numbers, from fewer steps."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tensorflow.core.protobuf import saved_model_pb2

import models
import training
from training.data.heads import Classes
from training.explaining.explainer import explainer_of
from training.optimising.folding import fold
from training.optimising.pairs import find_pairs
from training.optimising.rewriting import Rewriting
from training.publishing import export
from training.publishing.export import Export
from training.publishing.publish import publish

SHAPE = (8, 8, 3)


def learnt(model: keras.Model) -> keras.Model:
    """The same, with the weights and the moving statistics of a model that learnt something."""
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if variable.dtype != "float32" or variable.name == "seed_generator_state":
            continue
        if variable.name in ("gamma", "moving_variance"):
            values = rng.uniform(0.2, 3, variable.shape)
        elif len(variable.shape) > 1:
            values = rng.normal(size=variable.shape) / np.sqrt(np.prod(variable.shape[:-1]))
        else:
            values = rng.normal(size=variable.shape)
        variable.assign(values)
    return model


def answers(model: keras.Model) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    inputs = [
        rng.integers(0, 3, (4, *each.shape[1:]))
        if each.dtype == "int32"
        # Of what is published, pixels; of a layer alone, numbers about 0.
        else rng.normal(size=(4, *each.shape[1:])).astype("float32")
        for each in model.inputs
    ]
    given = model(inputs if inputs[1:] else inputs[0], training=False)
    return [np.asarray(each) for each in tf.nest.flatten(given)]


def check_folds(model: keras.Model, *names: str) -> None:
    """Exactly the layers of these names are folded, and every answer stays what it was."""
    pairs = find_pairs(learnt(model))
    assert sorted(pair.layer.name for pair in pairs) == sorted(names)
    rewriting = Rewriting(model, [fold(pair) for pair in pairs])
    for part in models.parts(model).values():
        before = answers(part)
        with rewriting.applied():
            folded = answers(part)
        for expected, answered in zip(before, folded, strict=True):
            scale = np.abs(expected).max()
            np.testing.assert_allclose(answered, expected, rtol=1e-5, atol=1e-5 * scale)
        for expected, again in zip(before, answers(part), strict=True):
            np.testing.assert_array_equal(again, expected)  # it is what it was


LAYERS = {
    "conv": lambda **options: layers.Conv2D(5, 3, name="folded", **options),
    "strided": lambda **options: layers.Conv2D(4, 3, 2, "same", name="folded", **options),
    "dilated": lambda **options: layers.Conv2D(4, 3, dilation_rate=2, name="folded", **options),
    "grouped": lambda **options: layers.Conv2D(6, 3, groups=3, name="folded", **options),
    "depthwise": lambda **options: layers.DepthwiseConv2D(3, name="folded", **options),
    "depthwise twice": lambda **options: layers.DepthwiseConv2D(
        3, depth_multiplier=2, name="folded", **options
    ),
    "separable": lambda **options: layers.SeparableConv2D(
        4, 3, depth_multiplier=2, name="folded", **options
    ),
    "transposed": lambda **options: layers.Conv2DTranspose(
        4, 3, 2, "same", name="folded", **options
    ),
    "dense": lambda **options: layers.Dense(5, name="folded", **options),
}


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_and_its_normalisation_are_one(layer, use_bias):
    image = keras.Input(SHAPE)
    x = layers.BatchNormalization()(LAYERS[layer](use_bias=use_bias)(image))
    check_folds(keras.Model(image, layers.Activation("relu")(x)), "folded")


@pytest.mark.parametrize(
    "options",
    [
        {"scale": False},
        {"center": False},
        {"scale": False, "center": False},
        {"axis": 3, "epsilon": 0.1},
        {"trainable": False},
    ],
    ids=str,
)
def test_whatever_the_normalisation_has(options):
    image = keras.Input(SHAPE)
    x = layers.Conv2D(4, 3, name="conv")(image)
    check_folds(keras.Model(image, layers.BatchNormalization(**options)(x)), "conv")


def test_a_dense_layer_behind_a_flatten():
    image = keras.Input(SHAPE)
    x = layers.Dense(4, name="dense")(layers.Flatten()(image))
    check_folds(keras.Model(image, layers.BatchNormalization()(x)), "dense")


def test_one_behind_the_other_and_through_what_hands_on_its_input():
    image = keras.Input(SHAPE)
    x = layers.BatchNormalization()(layers.Conv2D(4, 1, name="one")(image))
    x = layers.Dropout(0.5)(layers.Conv2D(4, 1, name="two")(x))
    check_folds(keras.Model(image, layers.BatchNormalization()(x)), "one", "two")


def test_a_pair_that_is_called_twice():
    left, right = keras.Input(SHAPE), keras.Input(SHAPE)
    conv, bn = layers.Conv2D(4, 1, name="conv"), layers.BatchNormalization()
    check_folds(keras.Model([left, right], layers.Add()([bn(conv(left)), bn(conv(right))])), "conv")


def nested(kind: str) -> keras.Model:
    inside = [layers.Conv2D(4, 3, name="inside"), layers.BatchNormalization()]
    if kind == "a stack":
        return keras.Sequential([keras.Input(SHAPE), *inside])
    if kind == "subclassed":

        class Block(keras.Model):
            def __init__(self):
                super().__init__()
                self.steps = inside

            def call(self, inputs, training=False):
                return self.steps[1](self.steps[0](inputs), training=training)

        return Block()
    image = keras.Input(SHAPE)
    return keras.Model(image, inside[1](inside[0](image)))


@pytest.mark.parametrize("kind", ["a stack", "subclassed", "functional"])
def test_within_another_model(kind):
    image = keras.Input(SHAPE)
    x = layers.Conv2D(3, 1, name="outside")(image)
    x = nested(kind)(layers.BatchNormalization()(x))
    check_folds(keras.Model(image, layers.Activation("relu")(x)), "outside", "inside")


class Standardised(layers.Conv2D):
    """Its weights are not what its kernel says."""

    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, kernel - keras.ops.mean(kernel))


class Tied(layers.Layer):
    """It computes with another layer's weights."""

    def __init__(self, other: keras.Layer) -> None:
        super().__init__()
        self.other = other

    def call(self, inputs):
        return keras.ops.matmul(inputs, self.other.kernel)


def tied() -> keras.Model:
    numbers, dense = keras.Input((3,)), layers.Dense(3)
    return keras.Model(numbers, Tied(dense)(layers.BatchNormalization()(dense(numbers))))


def in_a_loop_too() -> keras.Model:
    image, film, conv = keras.Input(SHAPE), keras.Input((None, *SHAPE)), layers.Conv2D(3, 1)
    frames = layers.TimeDistributed(conv)(film)
    return keras.Model([image, film], [layers.BatchNormalization()(conv(image)), frames])


def left_alone() -> dict[str, keras.Model]:
    image, other = keras.Input(SHAPE), keras.Input(SHAPE)
    conv, bn = layers.Conv2D(3, 1, name="conv"), layers.BatchNormalization()
    x = conv(image)
    normalised = layers.BatchNormalization()
    return {
        "an activation between": keras.Model(
            image, layers.BatchNormalization()(layers.Conv2D(3, 1, activation="relu")(image))
        ),
        "two that take it": keras.Model(
            image, [layers.BatchNormalization()(x), layers.BatchNormalization()(x)]
        ),
        "taken by another layer too": keras.Model(image, layers.Add()([normalised(x), x])),
        "taken behind another normalisation too": keras.Model(
            image,
            layers.Add()([normalised(x), layers.BatchNormalization()(layers.ReLU()(x))]),
        ),
        "an output as well": keras.Model(image, [x, layers.BatchNormalization()(x)]),
        "a normalisation of two layers": keras.Model(
            image, layers.Add()([bn(layers.Conv2D(3, 1)(image)), bn(layers.Conv2D(3, 1)(image))])
        ),
        "a layer with two normalisations": keras.Model(
            [image, other],
            [layers.BatchNormalization()(conv(image)), layers.BatchNormalization()(conv(other))],
        ),
        "along the height": keras.Model(image, layers.BatchNormalization(axis=1)(x)),
        "a class of one's own": keras.Model(
            image, layers.BatchNormalization()(Standardised(3, 1)(image))
        ),
        "by the batch": keras.Model(
            image, layers.Lambda(lambda each: bn(each, training=True), output_shape=SHAPE)(x)
        ),
        "in half precision": keras.Model(
            image,
            layers.BatchNormalization()(layers.Conv2D(3, 1, dtype="mixed_bfloat16")(image)),
        ),
        "weights that another layer has too": tied(),
        "in a loop too": in_a_loop_too(),
        "nothing before it": keras.Model(image, layers.BatchNormalization()(image)),
    }


@pytest.mark.parametrize("name", left_alone())
def test_what_cannot_be_folded_is_left_as_it_is(name):
    assert find_pairs(left_alone()[name]) == []


FAMILIES = {
    "resnet50": ({"depths": (1, 1), "width": 4, "stem": "3x3"}, 9),
    "inception_v3": ({"width": 0.05}, 94),
    "gan": ({"latent": 5, "width": 4}, 1),  # of the generator's two, one has a transposed before it
}


@pytest.mark.parametrize("family", ["resnet50", "gan"])
def test_families_fold(family):
    size, count = FAMILIES[family]
    model = models.build(family, (8, 8, 1), 3, **size)
    assert len(find_pairs(model)) == count
    check_folds(model, *(pair.layer.name for pair in find_pairs(model)))


@pytest.fixture(scope="module")
def normalised() -> keras.Model:
    keras.utils.set_random_seed(3)
    return learnt(models.build("resnet50", (8, 8, 1), 10, **FAMILIES["resnet50"][0]))


def nodes(version, kind: str) -> int:
    """How many nodes of the kind the graphs of a version have."""
    proto = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes())
    return sum(
        node.op == kind
        for each in proto.meta_graphs
        for function in each.graph_def.library.function
        for node in function.node_def
    )


@pytest.mark.slow
def test_what_is_published_is_folded_and_answers_as_keras(normalised, dataset, run_of, tmp_path):
    version = publish(normalised, dataset, run_of(normalised), tmp_path, "resnet")
    assert nodes(version, "Rsqrt") == 0 and nodes(version, "BiasAdd") > 0
    facts = json.loads((version / "metrics.json").read_text())
    assert facts["graphs"] == {"serve": {"folded": 9}}
    assert "serve: 9 normalisations folded" in (version / "model-card.md").read_text()
    names = {name for name, _ in tf.train.list_variables(str(version / "variables" / "variables"))}
    weights = [name for name in names if name.startswith("weights")]
    assert len(weights) == 2 * (9 + 1)  # a kernel and a bias for each convolution and the head


@pytest.mark.parametrize("layer", ["", "bn", "conv"])
def test_explain_looks_where_it_did(layer):
    image = keras.Input(SHAPE, name="image")
    x = layers.BatchNormalization(name="bn")(layers.Conv2D(4, 3, name="conv")(image))
    x = layers.GlobalAveragePooling2D()(layers.ReLU(name="relu")(x))
    model = learnt(keras.Model(image, layers.Dense(2, activation="softmax", name="label")(x)))
    heads = {"label": Classes(("cat", "dog"))}
    plain = explainer_of(model, heads, ["image"], layer)
    pairs = find_pairs(model, [layer])
    assert len(pairs) == (0 if layer == "conv" else 1)
    with Rewriting(model, [fold(pair) for pair in pairs]).applied():
        folded = explainer_of(model, heads, ["image"], layer)
    assert folded.looked_at == plain.looked_at
    assert folded.looked_at["label"]["image"] == (layer or "relu")
    asked = {
        "image": tf.constant(np.random.default_rng(2).normal(size=(4, *SHAPE)), tf.float32),
        "class": tf.constant([-1, 0, 1, 1]),
    }
    before, after = plain.graph(asked), folded.graph(asked)
    for name in before:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-4, atol=2e-3)


def test_a_graph_that_answers_otherwise_is_not_folded(dataset, tmp_path, monkeypatch):
    def wrong(pair):
        folded = fold(pair)
        return dataclasses.replace(folded, bias=folded.bias + 0.01)

    monkeypatch.setattr(export, "fold", wrong)
    image = keras.Input((8, 8, 1), name="image")
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, name="conv")(image))
    model = learnt(keras.Model(image, layers.ReLU(name="maps")(x)))
    said: list[str] = []
    rows = dataset.test.take(slice(4)).inputs
    exported = Export(model, {}, rows, images={}).write(tmp_path, said.append)
    assert exported.graphs == {"serve": {"folded": 0}} and nodes(tmp_path, "Rsqrt") > 0
    assert [line.partition(";")[0] for line in said] == ["Its normalisations stay as they are"]


def test_an_adopted_model_is_folded_too(tmp_path):
    bn = layers.BatchNormalization()
    inside = keras.Sequential([keras.Input((6,)), layers.Dense(4), bn])
    sizes = keras.Input((6,))
    model = learnt(keras.Model(sizes, layers.Dense(3, activation="softmax")(inside(sizes))))
    said: list[str] = []
    version = training.publish(model, model_repository=tmp_path, name="own", say=said.append)
    facts = json.loads((version / "metrics.json").read_text())
    assert facts["graphs"] == {"serve": {"folded": 1}}
    assert nodes(version, "Rsqrt") == 0
    assert "call" not in vars(bn)  # the user's own is as it was


@pytest.mark.slow
def test_a_large_family_folds():
    size, count = FAMILIES["inception_v3"]
    model = models.build("inception_v3", (75, 75, 3), 3, **size)
    assert len(find_pairs(model)) == count
    check_folds(model, *(pair.layer.name for pair in find_pairs(model)))

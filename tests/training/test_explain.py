"""Where a model says the evidence lies: with networks whose evidence is known beforehand."""

import dataclasses
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import models
from training.data.heads import Chance, Classes, Logits, naming
from training.errors import BadSetting, UnknownName
from training.explaining import heat, judging
from training.explaining.explainer import Explainer, explainer_of
from training.inference import predict

# The classifiers among the families, small: the heads of each, and where they look.
FAMILIES = {
    "mlp": ({"units": (4,)}, ""),
    "cnn_sequential": ({"filters": 2, "units": 4}, "conv"),
    "cnn_functional": ({"filters": 2, "units": 4}, "conv"),
    "vgg16": ({"depths": (1, 2), "width": 2, "units": 4}, "block2_conv2"),
    "vgg19": ({"depths": (1, 1), "width": 2, "units": 4, "sequential": True}, "block2_conv1"),
    "resnet50": ({"depths": (1, 2), "width": 2, "stem": "3x3"}, "conv3_block2_out"),
    "resnet101": ({"depths": (1,), "width": 2, "stem": "3x3_pool"}, "conv2_block1_out"),
    "resnet152": ({"depths": (1, 1), "width": 2, "stem": "3x3"}, "conv3_block1_out"),
    "inception_v3": ({"input_shape": (75, 75, 1), "width": 0.05}, "mixed7"),
    "vit_b16": ({"patch": 4, "width": 8, "depth": 1, "heads": 2, "mlp_width": 8}, "position"),
    "gan": ({"width": 2}, "down2_relu"),
    "multi_head": ({"width": 2, "units": 4}, "trunk_conv2"),
}
SLOW = {"vgg19", "resnet101", "resnet152", "inception_v3"}
LABELS = ("left", "right")


def planted(activation="relu"):
    """[N, 8, 8, 1] -> `spot` where a pixel of the upper left is bright, else `none`.

    One map is the picture and counts; the other is the picture and counts for nothing.
    """
    image = keras.Input((8, 8, 1), name="image")
    conv = layers.Conv2D(2, 1, activation=activation, name="conv", use_bias=False)
    pooled = layers.GlobalAveragePooling2D()(conv(image))
    label = layers.Dense(2, "softmax", name="label")
    model = keras.Model(image, label(pooled))
    conv.kernel.assign([[[[1.0, -1.0]]]])
    label.kernel.assign([[1.0, 0.0], [0.0, 1.0]])
    return model


def corner(rows=1):
    """Bright in its upper left corner alone."""
    image = np.zeros((rows, 8, 8, 1), np.float32)
    image[:, :2, :2] = 200
    return image


def explain(model, image, classes, heads=None, **options):
    explainer = Explainer(model, heads or {"label": Classes(LABELS)}, ["image"], **options)
    answer = explainer.graph({"image": tf.constant(image), "class": tf.constant(classes, tf.int32)})
    return {name: value.numpy() for name, value in answer.items()}


def test_the_heat_is_where_the_evidence_is():
    answer = explain(planted(), corner(), [0])
    expected = np.zeros((8, 8))
    expected[:2, :2] = 1
    np.testing.assert_allclose(answer["heatmap"][0], expected, atol=1e-6)
    assert answer["score"][0] > 0.99


def test_a_class_that_nothing_speaks_for_has_no_heat():
    answer = explain(planted(), corner(), [1])
    np.testing.assert_array_equal(answer["heatmap"], np.zeros((1, 8, 8)))
    assert answer["class"].tolist() == [1]


def test_each_row_is_explained_for_its_own_class():
    answer = explain(planted(), corner(3), [-1, 1, 0])
    assert answer["class"].tolist() == [0, 1, 0]
    assert answer["heatmap"].max(axis=(1, 2)).tolist() == [1, 0, 1]


@pytest.mark.parametrize("bad", [[-2], [2], [7], [0, 1], []])
def test_a_class_that_there_is_not_is_an_invalid_argument(bad):
    with pytest.raises(tf.errors.InvalidArgumentError, match="class: expected"):
        explain(planted(), corner(), bad)


def test_no_rows_are_no_heat():
    answer = explain(planted(), corner(0), [])
    assert {name: value.shape for name, value in answer.items()} == {
        "heatmap": (0, 8, 8),
        "class": (0,),
        "score": (0,),
    }


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_has_no_heat(value):
    image = corner()
    image[0, 7, 7] = value
    found = explain(planted(), image, [0])["heatmap"]
    assert np.isfinite(found).all() and found.min() >= 0 and found.max() <= 1
    gradient = tf.fill((1, 8, 8, 2), tf.constant(value, tf.float32))
    assert not heat.grad_cam(tf.ones((1, 8, 8, 2)), gradient).numpy().any()
    assert not heat.input_gradient(gradient).numpy().any()


@pytest.mark.parametrize(
    ("activation", "head"),
    [("softmax", Classes(LABELS)), (None, Logits(LABELS)), ("sigmoid", Classes(LABELS))],
)
def test_a_sure_answer_has_its_heat_like_any(activation, head):
    """After the softmax the gradient of a probability of 1 is 0."""
    model = planted()
    label = model.get_layer("label")
    label.activation = keras.activations.get(activation)
    model = keras.Model(model.inputs, label(model.layers[-2].output))
    answer = explain(model, corner() * 1000, [0], {"label": head})
    assert answer["heatmap"][0, 0, 0] == 1 and answer["score"][0] == 1


def test_one_sigmoid_speaks_for_the_second_class_and_against_the_first():
    image = keras.Input((8, 8, 1), name="image")
    conv = layers.Conv2D(1, 1, use_bias=False, kernel_initializer="ones", name="conv")
    label = layers.Dense(1, "sigmoid", kernel_initializer="ones", name="label")
    model = keras.Model(image, label(layers.GlobalAveragePooling2D()(conv(image))))
    answer = explain(model, corner(2), [0, 1], {"label": Chance(LABELS)})
    assert answer["heatmap"].max(axis=(1, 2)).tolist() == [0, 1]
    np.testing.assert_allclose(answer["score"].sum(), 1, rtol=1e-6)


def test_where_no_softmax_is_found_the_logarithm_of_the_probability_is_explained():
    inner = planted()
    shares = layers.Lambda(lambda x: x / 2, output_shape=(2,), name="share")(inner.output)
    model = keras.Model(inner.inputs, shares)
    answer = explain(model, corner() / 100, [0], {"share": Classes(LABELS)})
    assert answer["heatmap"][0, 0, 0] == 1


@pytest.mark.parametrize(
    "family",
    [pytest.param(each, marks=pytest.mark.slow if each in SLOW else ()) for each in FAMILIES],
)
def test_every_family_of_classifiers_is_explained(family):
    size, layer = FAMILIES[family]
    shape = size.get("input_shape", (8, 8, 1))
    model = models.build(family, **{"input_shape": shape, "classes": 3, **size})
    explainer = explainer_of(model, {"label": Classes(("a", "b", "c"))}, ["image"])
    assert explainer.looked_at == {"label": {"image": layer}}
    image = np.random.default_rng(0).uniform(0, 255, (2, *shape)).astype(np.float32)
    answer = explainer.graph({"image": tf.constant(image), "class": tf.constant([-1, 2])})
    found = answer["heatmap"].numpy()
    assert found.shape[0] == 2 and found.min() >= 0 and found.max() <= 1
    if not layer:
        assert found.shape[1:] == shape[:2] and found.max() == 1


def test_of_several_heads_each_is_asked_of_every_picture():
    model = models.build("digit_sum", (8, 8, 1), 3, width=2, units=4)
    heads = {name: Classes(tuple("01234")[: 5 if name == "sum" else 3]) for name in model.output}
    explainer = Explainer(model, naming(heads), ["left", "right"])
    conv = "encoder/trunk_conv2"
    assert explainer.looked_at == {
        "left_digit": {"left": conv},
        "right_digit": {"right": conv},
        "sum": {"left": conv, "right": conv},
    }
    pictures = {name: tf.random.uniform((2, 8, 8, 1)) * 255 for name in ("left", "right")}
    asked = {f"{name}_class": tf.constant([-1, 0]) for name in heads}
    answer = explainer.graph(pictures | asked)
    assert answer["sum_heatmap_left"].shape == answer["sum_heatmap_right"].shape == (2, 4, 4)
    assert answer["left_digit_heatmap_right"].numpy().tolist() == [[[0.0]], [[0.0]]]


def test_numbers_beside_the_picture_are_taken_as_they_are():
    image, size = keras.Input((8, 8, 1), name="image"), keras.Input((2,), name="size")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3, name="conv")(image))
    label = layers.Dense(2, "softmax", name="label")(layers.Concatenate()([x, size]))
    explainer = Explainer(keras.Model([image, size], label), {"label": Classes(LABELS)}, ["image"])
    assert explainer.looked_at == {"label": {"image": "conv"}}
    rows = {"image": tf.ones((2, 8, 8, 1)), "size": tf.ones((2, 2)), "class": tf.constant([0, 1])}
    assert explainer.graph(rows)["heatmap"].shape == (2, 6, 6)


class Row(layers.Layer):
    """[N, T, C] -> the same with a row of zeros before or behind it."""

    def __init__(self, end):
        super().__init__()
        self.end = end

    def call(self, x):
        row = keras.ops.zeros((keras.ops.shape(x)[0], 1, x.shape[-1]))
        return keras.ops.concatenate([x, row] if self.end else [row, x], axis=1)


def by_convolution(image):
    return layers.Conv2D(4, 2, strides=2, use_bias=False)(image)


def by_cutting(image):
    return layers.Lambda(lambda x: keras.ops.image.extract_patches(x, 2), (4, 4, 4))(image)


def by_turning(image):
    return layers.Permute((2, 1, 3))(by_convolution(image))


def by_no_place(image):
    return layers.Reshape((16, 4))(layers.Dense(64)(layers.Flatten()(image)))


def transformer(*, patched=by_convolution, end=False, keys=lambda x: x):
    """[N, 8, 8, 1] -> probabilities, by two attentions and a token that it answers by."""
    image = keras.Input((8, 8, 1), name="image")
    x = Row(end)(layers.Reshape((-1, 4))(patched(image)))
    for block in (1, 2):
        attended = layers.MultiHeadAttention(1, 4, name=f"attention{block}")(x, keys(x))
        x = layers.Add(name=f"block{block}_out")([x, attended])
    own = x[:, -1 if end else 0]
    return keras.Model(image, layers.Dense(2, "softmax", name="label")(own))


@pytest.mark.parametrize("patched", [by_convolution, by_cutting])
@pytest.mark.parametrize("end", [False, True])
def test_heat_of_tokens_is_where_their_patches_are(patched, end):
    """One patch differs from the others, and the first attention adds nothing to it."""
    keras.utils.set_random_seed(3)
    model = transformer(patched=patched, end=end)
    first = model.get_layer("attention1")
    first.set_weights([np.zeros_like(each) for each in first.get_weights()])
    label = model.get_layer("label").kernel
    label.assign(keras.ops.stack([label[:, 0], -label[:, 0]], axis=1))  # one's for is one's against
    explainer = Explainer(model, {"label": Classes(LABELS)}, ["image"])
    assert explainer.looked_at == {"label": {"image": "block1_out"}}
    image = np.zeros((2, 8, 8, 1), np.float32)
    image[:, 4:6, 2:4] = 3  # the third row's second patch
    rows = {"image": tf.constant(image), "class": tf.constant([0, 1])}
    found = explainer.graph(rows)["heatmap"].numpy()
    assert found.shape == (2, 4, 4)
    hottest = [divmod(int(each.argmax()), 4) for each in found]
    assert (2, 1) in hottest, "for one of the two classes it speaks"


@pytest.mark.parametrize(
    "unlike", [{"keys": lambda x: x[:, ::2]}, {"patched": by_no_place}, {"patched": by_turning}]
)
def test_tokens_that_no_place_is_known_of_leave_the_pixels(unlike):
    """Attention to fewer tokens than there are, tokens that are no patches, and patches of a map
    that was turned over."""
    explainer = Explainer(transformer(**unlike), {"label": Classes(LABELS)}, ["image"])
    assert explainer.looked_at == {"label": {"image": ""}}


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.trunk = keras.Sequential(
            [layers.Conv2D(2, 3, name="first"), layers.Conv2D(2, 3, name="last")], name="trunk"
        )
        self.dense = layers.Dense(2, "softmax", name="label")

    def call(self, image):
        return self.dense(keras.ops.mean(self.trunk(image), axis=(1, 2)))


def test_a_subclassed_model_in_another_is_walked_through():
    image = keras.Input((8, 8, 1), name="image")
    own = Subclassed()
    outer = keras.Model(image, {"label": own(image)})
    found = Explainer(outer, {"label": Classes(LABELS)}, ["image"]).looked_at
    assert found == {"label": {"image": f"{own.name}/trunk/last"}}


@pytest.mark.parametrize("name", ["first", "trunk/first"])
def test_another_layer_can_be_named(name):
    own = Subclassed()
    image = keras.Input((8, 8, 1), name="image")
    outer = keras.Model(image, {"label": keras.Sequential([own], name="whole")(image)})
    name = name if name == "first" else f"whole/{own.name}/{name}"
    answer = explain(outer, corner(), [0], layer=name)
    assert answer["heatmap"].shape == (1, 6, 6)


def test_a_layer_that_there_is_not_is_refused_with_those_there_are():
    with pytest.raises(UnknownName, match=r"no layer of maps .* 'con'; known, nearest first: conv"):
        explain(planted(), corner(), [0], layer="con")


def test_the_model_is_as_it_was():
    model = planted()
    before = model(corner()).numpy()
    explain(model, corner(), [0])
    assert all("call" not in vars(layer) for layer in model.layers)
    np.testing.assert_array_equal(model(corner()).numpy(), before)


def test_what_cannot_be_explained_has_no_explainer():
    image = keras.Input((8, 8, 1), name="class")
    model = keras.Model(image, layers.Dense(2, "softmax", name="label")(layers.Flatten()(image)))
    heads = {"label": Classes(LABELS)}
    assert explainer_of(model, heads, ["class"]) is None
    assert explainer_of(planted(), heads, []) is None
    assert explainer_of(planted(), {}, ["image"]) is None
    with pytest.raises(BadSetting, match="explain_layer is 'conv', and nothing of this model"):
        explainer_of(planted(), {}, ["image"], "conv")


@dataclasses.dataclass(frozen=True)
class Judged:
    """A trained model and 300 held-out pictures: [N, H, W, C], and the classes that it answers."""

    recipe: str
    model: keras.Model
    images: np.ndarray
    classes: np.ndarray

    def heat(self):
        """[N, h, w] for `classes`."""
        return explain(self.model, self.images, self.classes, TEN)["heatmap"]

    def score(self, images):
        """Of `classes`, [N]."""
        answered = predict(self.model, {"image": images})["label"]
        return answered[np.arange(len(images)), self.classes]


TEN = {"label": Classes(tuple("0123456789"))}


@pytest.fixture(scope="module", params=["digits", "fashion", "vit_small"])
def judged(request, quickly_trained):
    model, dataset = quickly_trained(request.param)
    held_out = dataset.test.inputs["image"][:300].astype(np.float32)
    classes = predict(model, {"image": held_out})["label"].argmax(-1).astype(np.int32)
    return Judged(request.param, model, held_out, classes)


@pytest.mark.slow
def test_without_its_hottest_tenth_a_picture_scores_less_than_without_a_random_tenth(judged):
    size = judged.images.shape[1:3]
    by_heat = judging.hottest(judging.on_the_picture(judged.heat(), size), 0.1)
    by_chance = judging.hottest(np.random.default_rng(0).random(by_heat.shape), 0.1)
    hot, chance = (
        judged.score(judging.without(judged.images, taken)) for taken in (by_heat, by_chance)
    )
    lost = chance - hot
    t = lost.mean() / (lost.std(ddof=1) / np.sqrt(len(lost)))
    assert t > 2.34, "p < 0.01, one-sided, of a paired t-test with 299 degrees of freedom"


def shuffle(model, seed):
    assert len([*judging.randomised(model, seed)]) > 2


@pytest.mark.slow
@pytest.mark.parametrize("change", [shuffle, judging.reinitialise])
def test_the_heat_is_the_weights_doing(judged, change):
    """Any weights tell a thing from the black ground, where heat is 0 (docs/explain.md): what
    counts is where on the thing the heat is, and that over all places it is hardly more alike than
    that of networks which have nothing in common."""
    before = judged.heat()
    kept, others = judged.model.get_weights(), []
    for seed in range(3):
        change(judged.model, seed)
        others.append(judged.heat())
        judged.model.set_weights(kept)
    all_over = [judging.rank_correlation(before, each) for each in others]
    if judged.recipe == "vit_small":  # of its 16 places hardly one is off the thing
        assert abs(np.mean(all_over)) < 0.4
        return
    thing = judging.off_the_ground(judged.images, before.shape[1:])
    on_the_thing = [judging.rank_correlation(before, each, thing) for each in others]
    assert abs(np.mean(on_the_thing)) < 0.2
    strangers = [judging.rank_correlation(*pair) for pair in itertools.combinations(others, 2)]
    assert abs(np.mean(all_over) - np.mean(strangers)) < 0.1

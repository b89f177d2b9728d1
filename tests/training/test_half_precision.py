"""More graphs of a version: in half precision, with the first graph's signatures and answers."""

import dataclasses
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from keras import layers
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

import models
import training
from service.modelserver.batching_options import batching_options
from sluice import Client
from sluice.wire.contract import WARMUP_FILE
from sluice.wire.processor import computes_bfloat16
from sluice.wire.protos.serving_pb2 import BatchingParameters, PredictionLog
from sluice.wire.saved_model import read_signatures
from training.data.heads import Classes
from training.errors import CannotAdopt, UnknownName
from training.optimising.lowering import lowered_layers
from training.optimising.rewriting import Rewriting
from training.publishing import half_precision
from training.publishing.agreement import Agreement, Limits, agreement, enough
from training.publishing.comparison import Figure
from training.publishing.export import Export
from training.publishing.half_precision import HalfPrecision, key
from training.publishing.held_out import HeldOut, of
from training.publishing.listing import as_json, table
from training.publishing.publish import publish
from training.publishing.saved_model import Session
from training.publishing.warmup import GPU_ROWS

ROOT = Path(__file__).parents[2]
KEY, GPU = key("bf16"), key("gpu")
HEADS = {"label": Classes(tuple("0123456789"))}
LOOSE = Limits(drop=100, margin=1)  # of a model that has learnt nothing


@pytest.fixture(scope="module")
def deep() -> keras.Model:
    keras.utils.set_random_seed(5)
    return models.build("resnet50", (8, 8, 1), 10, depths=(1,), width=16, stem="3x3")


@pytest.fixture(scope="module")
def run_of_both(run_of):
    def make(model: keras.Model):
        run = run_of(model)
        recipe = dataclasses.replace(
            run.recipe, optimize="bf16,gpu", optimize_drop=LOOSE.drop, optimize_margin=LOOSE.margin
        )
        return dataclasses.replace(run, recipe=recipe)

    return make


@pytest.fixture(scope="module")
def both(deep, dataset, run_of_both, tmp_path_factory):
    """A version with all graphs; not to be written to."""
    return publish(deep, dataset, run_of_both(deep), tmp_path_factory.mktemp("both"), "deep")


def graphs(version) -> dict[str, SavedModel]:
    proto = SavedModel.FromString((version / "saved_model.pb").read_bytes())
    return {",".join(graph.meta_info_def.tags): graph for graph in proto.meta_graphs}


def variables(graph) -> set[int]:
    """The dtypes of what a graph restores."""
    return {node.attr["dtype"].type for node in graph.graph_def.node if node.op == "VarHandleOp"}


def test_layers_that_prepare_pixels_or_tell_scores_stay_in_float32(deep):
    lowered = {layer.name for layer in lowered_layers(deep)}
    assert {"conv1_conv", "conv1_bn", "conv2_block1_add", "avg_pool"} <= lowered
    assert not {"image", "rescale", "label"} & lowered


def test_a_softmax_of_its_own_and_the_layer_before_it_stay_in_float32():
    image = keras.Input((8, 8, 1))
    x = layers.Conv2D(2, 3, name="conv")(layers.Normalization(name="prepared")(image))
    x = layers.Dense(3, name="scores")(layers.Flatten(name="flat")(x))
    model = keras.Model(image, layers.Softmax(name="softmax")(x))
    assert [layer.name for layer in lowered_layers(model)] == ["conv", "flat"]


def test_layers_of_integers_stay_as_they_are():
    numbers = keras.Input((6,))
    x = layers.Dense(4, name="integers")(numbers)
    x = layers.Dense(4, name="hidden")(x)
    model = keras.Model(numbers, layers.Dense(2, name="told")(x))
    model.get_layer("integers").quantize("int8")
    assert [layer.name for layer in lowered_layers(model)] == ["hidden"]


def test_pixels_that_training_alone_changes_are_prepared_in_float32():
    image = keras.Input((8, 8, 1))
    x = layers.RandomFlip(seed=1)(image)  # which holds the state of its random numbers
    x = layers.Conv2D(2, 3, name="conv")(layers.Rescaling(1 / 255)(x))
    model = keras.Model(image, layers.Dense(3)(layers.Flatten(name="flat")(x)))
    assert [layer.name for layer in lowered_layers(model)] == ["conv", "flat"]


def test_where_no_weights_would_be_less_nothing_is_lowered():
    image = keras.Input((8, 8, 1))
    x = layers.Dropout(0.5)(layers.Flatten()(layers.Rescaling(1 / 255)(image)))
    assert lowered_layers(keras.Model(image, layers.Dense(3)(x))) == []


@pytest.mark.parametrize("family", ["cnn_sequential", "unet", "vit_b16", "digit_sum", "gan"])
def test_a_family_computes_in_it_and_is_what_it_was_afterwards(family):
    sizes = {
        "unet": {"width": 2, "depth": 1},
        "vit_b16": {"patch": 4, "width": 8, "depth": 1, "heads": 2, "mlp_width": 8},
        "digit_sum": {"width": 2},
        "gan": {"latent": 5, "width": 2},
        "cnn_sequential": {"filters": 2, "units": 3},
    }
    model = models.build(family, (8, 8, 1), 3, **sizes[family])
    rng = np.random.default_rng(0)
    for part in models.parts(model).values():
        given = [rng.uniform(0, 3, (4, *each.shape[1:])).astype(each.dtype) for each in part.inputs]
        asked = given if given[1:] else given[0]
        before = [np.asarray(each) for each in tf.nest.flatten(part(asked))]
        with Rewriting(model, (), lowered_layers(model)).applied():
            half = [np.asarray(each, "f4") for each in tf.nest.flatten(part(asked))]
        assert any((a != b).any() for a, b in zip(before, half, strict=True))
        for exact, rounded in zip(before, half, strict=True):
            np.testing.assert_allclose(rounded, exact, atol=0.05 * max(1, np.abs(exact).max()))
        after = [np.asarray(each) for each in tf.nest.flatten(part(asked))]
        for a, b in zip(before, after, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_version_has_both_with_the_same_signatures(both):
    found = graphs(both)
    assert [*found] == ["serve", KEY, GPU]
    first, *others = (
        {
            name: (
                {key: (info.dtype, str(info.tensor_shape)) for key, info in each.inputs.items()},
                {key: (info.dtype, str(info.tensor_shape)) for key, info in each.outputs.items()},
                each.method_name,
            )
            for name, each in graph.signature_def.items()
            if name != "__saved_model_init_op"
        }
        for graph in found.values()
    )
    assert others == [first, first] and "explain" in first and "classify" in first


@pytest.mark.slow
def test_each_restores_its_own_of_the_variables_that_they_share(both):
    found = graphs(both)
    assert variables(found["serve"]) == {types_pb2.DT_FLOAT}
    assert variables(found[KEY]) == {types_pb2.DT_FLOAT, types_pb2.DT_BFLOAT16}
    assert variables(found[GPU]) == {types_pb2.DT_FLOAT, types_pb2.DT_HALF}
    stored = tf.train.list_variables(str(both / "variables" / "variables"))
    names = {name.partition("/")[0] for name, _ in stored}
    assert {"weights", "bf16_weights", "gpu_weights"} <= names
    assert len([*(both / "variables").glob("*.data-*")]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, -1], ids=["serve first", "bf16 first"])
def test_each_answers_by_its_tags_in_either_order(both, deep, dataset, tmp_path, order):
    version = shutil.copytree(both, tmp_path / "1")
    proto = SavedModel.FromString((version / "saved_model.pb").read_bytes())
    swapped = SavedModel(saved_model_schema_version=proto.saved_model_schema_version)
    swapped.meta_graphs.extend([*proto.meta_graphs][::order])
    (version / "saved_model.pb").write_bytes(swapped.SerializeToString())
    images = dataset.test.inputs
    exact = np.asarray(deep(images["image"].astype("f4"), training=False))
    with Session(version) as session:
        np.testing.assert_allclose(session.predict(images)["label"], exact, rtol=1e-4, atol=1e-6)
    for tags in (KEY, GPU):
        with Session(version, tags.split(",")) as session:
            rounded = session.predict(images)["label"]
        assert rounded.dtype == np.float32
        assert 0 < np.abs(rounded - exact).max() < 0.05


def warm_up_records(version) -> list[PredictionLog]:
    records = tf.data.TFRecordDataset(str(version / WARMUP_FILE)).as_numpy_iterator()
    return [PredictionLog.FromString(raw) for raw in records]


@pytest.mark.slow
def test_warm_up_asks_every_signature(both):
    requests = [record.predict_log.request for record in warm_up_records(both)]
    asked = {request.model_spec.signature_name for request in requests} - {""}
    assert asked | {"classify"} == {*read_signatures(both)}
    rows = [
        request.inputs["image"].tensor_shape.dim[0].size
        for request in requests
        if request.model_spec.signature_name == "encoded"
    ]
    assert rows == [1, *GPU_ROWS]


@pytest.mark.slow
@pytest.mark.parametrize("tags", ["serve", KEY, GPU])
def test_the_twin_replays_the_warm_up_in_the_graph_that_it_serves(
    both, tmp_path, launch_modelserver, tags
):
    version = shutil.copytree(both, tmp_path / "deep" / "1")
    proto = SavedModel.FromString((version / "saved_model.pb").read_bytes())
    for graph in proto.meta_graphs:
        if ",".join(graph.meta_info_def.tags) != tags:
            graph.ClearField("signature_def")  # no record runs in another graph
    (version / "saved_model.pb").write_bytes(proto.SerializeToString())
    server = launch_modelserver(f"--model_repository={tmp_path}", f"--saved_model_tags={tags}")
    records = len(warm_up_records(version))
    assert f"Ran {records} warmup records of {version / WARMUP_FILE} in " in server.log
    server.terminate()


def test_warm_up_meets_each_batch_size_that_a_gpu_is_given():
    file = ROOT / "deploy/kubernetes/components/gpu/batching.config"
    sizes = batching_options(
        text_format.Parse(file.read_text(), BatchingParameters())
    ).allowed_sizes
    met = [next(size for size in sizes if size >= rows) for rows in (1, *GPU_ROWS)]
    assert met == [*sizes]


@pytest.mark.slow
def test_the_card_and_the_list_say_what_each_is_worth(both):
    facts = json.loads((both / "metrics.json").read_text())["graphs"]
    assert [*facts] == ["serve", KEY, GPU]
    assert facts["serve"]["folded"] == facts[KEY]["folded"] == facts[GPU]["folded"] == 5
    assert facts[KEY]["precision"] == "bfloat16" and facts[GPU]["precision"] == "float16"
    assert facts[KEY]["memory"] < facts["serve"]["memory"]
    assert facts[KEY]["rows"] == 64 * 25 and facts[KEY]["moved"]
    assert [*facts["serve"]["images_per_s"]] == ["1", "8", "32"]
    assert ("images_per_s" in facts[KEY]) == computes_bfloat16()
    assert "GPU" in facts[GPU]["unmeasured"]
    assert facts[KEY]["agreement"]["label"] > 0.9
    assert facts[KEY]["measures"]["label"].keys() == {"measure", "serve", "this"}
    card = (both / "model-card.md").read_text()
    assert f"- {KEY}: 5 normalisations folded" in card and "images a second" in card
    listed = table(both.parent.parent)
    assert f"deep 1, graph {KEY}: " in listed and "label accuracy" in listed
    [model] = as_json(both.parent.parent)["models"]
    assert model["versions"][0]["graphs"] == facts


class TestTheGate:
    """What is left out, and the line that says why."""

    def written(self, model, dataset, directory, limits):
        said: list[str] = []
        exported = Export(
            model,
            HEADS,
            dataset.test.take(slice(4)).inputs,
            images={},
            half=HalfPrecision(["bf16"], of(dataset), limits),
        ).write(directory, said.append)
        return exported, said

    @pytest.mark.slow
    def test_a_model_that_answers_otherwise_has_one_graph(self, dataset, tmp_path):
        image = keras.Input((8, 8, 1), name="image")
        x = layers.Flatten()(layers.Conv2D(1, 1, name="conv")(image))
        label = layers.Dense(10, activation="softmax", name="label")
        model = keras.Model(image, label(x))
        # The label hangs on the ninth bit of what the convolution gives.
        rows = dataset.test.inputs["image"].reshape(-1, 64).astype("f4")
        model.get_layer("conv").set_weights([np.ones((1, 1, 1, 1)), np.full(1, 1000.0)])
        rng = np.random.default_rng(0)
        weights = rng.normal(size=(64, 10)) * 10
        label.set_weights([weights, -weights.sum(0) * 1000 - rows.mean(0) @ weights])
        exported, said = self.written(model, dataset, tmp_path, Limits())
        assert "absent" in exported.graphs[KEY]
        assert [*graphs(tmp_path)] == ["serve"]
        assert not (tmp_path / ".half").exists()
        assert said == [f"No graph {KEY}: {exported.graphs[KEY]['absent']}"]

    @pytest.mark.slow
    def test_a_model_that_cannot_compute_in_it_has_one_graph(self, dataset, tmp_path):
        image = keras.Input((8, 8, 1), name="image")
        x = layers.Conv2D(2, 1)(image)
        x = layers.Lambda(lambda maps: tf.matmul(tf.eye(8), maps[..., 0]))(x)
        x = layers.Dense(10, activation="softmax", name="label")(layers.Flatten()(x))
        exported, said = self.written(keras.Model(image, x), dataset, tmp_path, LOOSE)
        assert "cannot compute in it" in exported.graphs[KEY]["absent"]
        assert [*graphs(tmp_path)] == ["serve"] and len(said) == 1

    @pytest.mark.slow
    def test_a_model_that_half_precision_would_not_change_has_one_graph(self, dataset, tmp_path):
        image = keras.Input((8, 8, 1), name="image")
        x = layers.Dense(10, activation="softmax", name="label")(layers.Flatten()(image))
        exported, said = self.written(keras.Model(image, x), dataset, tmp_path, Limits())
        assert "no layer with weights" in exported.graphs[KEY]["absent"]
        assert [*graphs(tmp_path)] == ["serve"] and len(said) == 1

    @pytest.mark.slow
    def test_a_full_disk_is_no_fault_of_a_precision(self, both, dataset, tmp_path):
        def write(*_):
            tf.io.write_file("/dev/full", "a graph")

        version = shutil.copytree(both, tmp_path / "1")
        wanted = HalfPrecision(["bf16"], of(dataset), LOOSE)
        with pytest.raises(tf.errors.OpError, match="No space left on device"):
            half_precision.add(version, write, HEADS, {}, wanted)

    @pytest.mark.parametrize(
        ("figure", "margin", "said"),
        [
            (Figure("label", "accuracy", live=0.9, new=0.898), 0.1, None),
            (Figure("label", "accuracy", live=0.9, new=0.95), 0.0, None),
            (Figure("label", "accuracy", live=0.9, new=0.8979), 0.1, "falls by 0.21 points"),
            (Figure("mask", "iou", live=0.9, new=float("nan")), 0.0, "falls by nan points"),
            (Figure("label", "accuracy", live=0.9, new=0.9), 0.11, "was ahead by 0.110"),
            (Figure("label", "accuracy", live=0.9, new=0.9), float("nan"), "was ahead by nan"),
        ],
    )
    def test_its_bounds(self, figure, margin, said):
        refusal = Agreement(2000, False, [figure], {"label": 0.9}, margin).refusal(Limits())
        assert refusal is None if said is None else said in refusal

    def test_where_a_row_gets_another_class_the_lead_counts(self):
        first = {"label": np.array([[0.6, 0.4], [0.52, 0.48], [0.9, 0.1]])}
        second = {"label": np.array([[0.6, 0.4], [0.48, 0.52], [0.8, 0.2]])}
        samples = HeldOut(
            {"image": np.zeros((3, 1))}, {"label": np.array([0, 1, 0])}, {"label": ("a", "b")}
        )
        heads = {"label": Classes(("a", "b"))}
        found = agreement(heads, samples, first, second, moved=False)
        assert found.same["label"] == pytest.approx(2 / 3) and found.margin == pytest.approx(0.04)
        assert (found.figures[0].live, found.figures[0].new) == (pytest.approx(2 / 3), 1)

    def test_what_nobody_knows_the_truth_of_is_held_against_the_first(self):
        first = {"depth": np.random.default_rng(0).normal(size=(50, 3)).astype("f4")}
        samples = HeldOut({"image": np.zeros((50, 1))}, {}, {})
        near, far = ({"depth": first["depth"] * factor} for factor in (1.01, 1.1))
        assert agreement({}, samples, first, near, moved=False).refusal(Limits()) is None
        refusal = agreement({}, samples, first, far, moved=False).refusal(Limits())
        assert "depth r2 against serve falls by" in refusal

    def test_few_rows_are_joined_by_the_same_moved(self, dataset):
        samples = of(dataset)
        more, moved = enough(samples, HEADS)
        assert moved and len(more) == 25 * len(samples)
        images = more.inputs["image"]
        np.testing.assert_array_equal(images[:64], samples.inputs["image"])
        inside = images[64:128, 1:-1, 1:-1]
        assert any(
            np.array_equal(inside, samples.inputs["image"][:, y : y + 6, x : x + 6])
            for y in range(3)
            for x in range(3)
        )
        np.testing.assert_array_equal(more.targets["label"][:128], [*samples.targets["label"]] * 2)


@pytest.mark.slow
def test_an_adopted_model_has_both_without_labels(tmp_path):
    keras.utils.set_random_seed(0)
    sizes = keras.Input((6,))
    x = layers.BatchNormalization()(layers.Dense(8)(sizes))
    version = training.publish(
        keras.Model(sizes, layers.Dense(3, activation="softmax")(x)),
        model_repository=tmp_path,
        name="own",
        optimize="bf16",
        optimize_margin=1.0,
        say=lambda _: None,
    )
    facts = json.loads((version / "metrics.json").read_text())["graphs"]
    assert [*graphs(version)] == ["serve", KEY]
    assert facts[KEY]["measures"] == {} and facts[KEY]["folded"] == 1


@pytest.mark.slow
def test_a_saved_model_is_published_as_it_is(both, tmp_path):
    with pytest.raises(CannotAdopt, match="--optimize"):
        training.publish(both, model_repository=tmp_path, name="own", optimize="bf16")


def test_there_is_no_other_way_to_optimize(deep, tmp_path):
    with pytest.raises(UnknownName, match="'bf8'; known, nearest first: bf16"):
        training.publish(deep, model_repository=tmp_path, name="own", optimize="bf8")


@pytest.mark.slow
@pytest.mark.parametrize("tags", [KEY, GPU])
def test_the_script_in_containers_finds_it_and_the_twin_answers_by_it(
    both, dataset, tmp_path, launch_modelserver, tags
):
    (tmp_path / "cpuinfo").write_text("flags\t: avx512_bf16\n")
    gpu = tmp_path if tags == GPU else tmp_path / "no GPU"
    script = ROOT / "deploy/kubernetes/base/best-graph.sh"
    server = launch_modelserver(
        f"--model_base_path={both.parent}",
        "--model_name=deep",
        within=["env", f"CPUINFO={tmp_path / 'cpuinfo'}", f"NVIDIA={gpu}", "sh", str(script)],
    )
    assert f"every version has the graph {tags}," in server.log
    with Client(f"grpc://{server.address}") as client:
        image = dataset.test.inputs["image"][:2].astype("f4")
        served = client.predict("deep", image=image)["label"]
    with Session(both, tags.split(",")) as session:
        np.testing.assert_allclose(served, session.predict({"image": image})["label"], rtol=1e-2)
    server.terminate()


@pytest.mark.slow
def test_the_twin_serves_the_graph_that_this_machine_is_quickest_with(both, launch_modelserver):
    server = launch_modelserver(
        f"--model_repository={both.parent.parent}", "--saved_model_tags=auto"
    )
    tags = KEY if computes_bfloat16() else "serve"
    assert f"Loading the graph {tags} of " in server.log
    server.terminate()

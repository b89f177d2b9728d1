"""The bfloat16 graph with its weights as constants: when it is chosen, and what is said of it."""

import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.types_pb2 import DT_BFLOAT16
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

import models
import training
from sluice.wire.contract import WARMUP_FILE
from sluice.wire.saved_model import read_signatures
from sluice.wire.signing import SigningKey, TrustedKeys
from tests.signing import key_pair
from training.data.heads import Classes
from training.explaining.explainer import explainer_of
from training.optimising.lowering import lowered_layers
from training.optimising.rewriting import Rewriting
from training.publishing import constants, half_precision, publish, saved_model
from training.publishing.agreement import Limits
from training.publishing.constants import Measured, compare, decide
from training.publishing.export import Export
from training.publishing.half_precision import HalfPrecision, key
from training.publishing.held_out import of
from training.publishing.holding import NotHeld, held_bytes
from training.publishing.listing import table
from training.publishing.saved_model import Session
from training.publishing.signatures import image_inputs
from training.publishing.trials import trials

KEY = key("bf16")
HEADS = {"label": Classes(tuple("0123456789"))}
LOOSE = Limits(drop=100, margin=1)  # of a model that has learnt nothing
SPEEDS = {"1": 25.0, "8": 78.0, "32": 82.0}
OURS = Measured(56_000_000, 238_000_000, SPEEDS)
THEIRS = Measured(56_000_000, 1_990_000_000, SPEEDS | {"1": 50.0})
BUDGET = 2000


@pytest.fixture(scope="module")
def deep() -> keras.Model:
    keras.utils.set_random_seed(5)
    return models.build("resnet50", (8, 8, 1), 10, depths=(1,), width=16, stem="3x3")


@pytest.fixture(scope="module")
def asked(deep, dataset):
    def of_signatures(signatures):
        rows = dataset.test.take(slice(4)).inputs
        explainer = explainer_of(deep, HEADS, image_inputs(deep.inputs), "")
        return trials(deep, rows, HEADS, signatures, explainer=explainer)

    return of_signatures


@pytest.fixture(scope="module")
def pair(deep, tmp_path_factory):
    """The bfloat16 graph with variables, and with constants; not to be written to."""
    folder = tmp_path_factory.mktemp("pair")
    for name in ("variables", "constants"):
        rewriting = Rewriting(
            deep, (), lowered_layers(deep), "bfloat16", constants=name == "constants"
        )
        saved_model.write(deep, HEADS, folder / name, rewriting=rewriting)
    return folder / "variables", folder / "constants"


@pytest.fixture
def as_measured(monkeypatch):
    """Whatever this machine computes in, the two are as fast and as large as is said here."""

    def measured(variables=OURS, constant=THEIRS):
        monkeypatch.setattr(constants, "computes_bfloat16", lambda: True)
        monkeypatch.setattr(constants, "compare", lambda *_: (variables, constant))

    return measured


@pytest.fixture
def exported(deep, dataset, tmp_path):
    """What metrics.json says of the graphs, in `tmp_path`, with so many MB allowed."""

    def export(budget_mb):
        wanted = HalfPrecision(["bf16"], of(dataset), LOOSE, budget_mb)
        rows = dataset.test.take(slice(4)).inputs
        return Export(deep, HEADS, rows, half=wanted).write(tmp_path, lambda _: None).graphs[KEY]

    return export


def graph_of(version: Path, tags: str = KEY):
    proto = SavedModel.FromString((version / "saved_model.pb").read_bytes())
    [found] = [each for each in proto.meta_graphs if ",".join(each.meta_info_def.tags) == tags]
    return found


def halves(version: Path, tags: str, op: str) -> int:
    """How many of the graph's nodes of this kind, outside functions, hold bfloat16."""
    nodes = graph_of(version, tags).graph_def.node
    return sum(node.op == op and node.attr["dtype"].type == DT_BFLOAT16 for node in nodes)


def test_a_rewritten_model_computes_the_same_with_constants(deep, dataset):
    images = dataset.test.inputs["image"][:4].astype("f4")
    answers, held = [], []
    for constant in (False, True):
        rewriting = Rewriting(deep, (), lowered_layers(deep), constants=constant)
        with rewriting.applied():
            answers.append(np.asarray(deep(images, training=False)))
        held.append({each.dtype for each in rewriting.variables()})
    np.testing.assert_array_equal(*answers)
    assert held == [{tf.float32, tf.bfloat16}, {tf.float32}]  # a head's last layer stays


def test_the_file_has_them_once_for_all_signatures(pair):
    variables, constant = pair
    weights = halves(variables, "serve", "VarHandleOp")
    assert weights and halves(variables, "serve", "Const") == 0
    assert halves(constant, "serve", "VarHandleOp") == 0
    assert 0 < halves(constant, "serve", "Const") <= weights
    assert len(read_signatures(constant)) == 6
    sizes = [
        sum(file.stat().st_size for file in each.rglob("*") if file.is_file()) for each in pair
    ]
    assert sizes[1] < 1.2 * sizes[0]


def test_every_signature_answers_as_with_variables(pair, asked):
    variables, constant = pair
    with Session(variables) as ours, Session(constant) as theirs:
        for name, trial in asked(read_signatures(variables)).items():
            expected, found = (each.run(name, trial.inputs) for each in (ours, theirs))
            assert expected.keys() == found.keys()
            for output, array in expected.items():
                if array.dtype.kind == "f":  # a convolution may be summed in another order
                    np.testing.assert_allclose(found[output], array, rtol=0.05, atol=0.02)


def test_what_each_costs_is_measured(pair, asked, dataset):
    requests = asked(read_signatures(pair[0]))
    for found, directory in zip(compare(*pair, requests, dataset.test.inputs), pair, strict=True):
        assert [*found.images_per_s] == ["1", "8", "32"] and min(found.images_per_s.values()) > 0
        assert found.held > 0
        assert found.bytes > (directory / "saved_model.pb").stat().st_size


def test_a_process_that_ends_measures_nothing(tmp_path):
    with pytest.raises(NotHeld, match="ends with status 1"):
        held_bytes(tmp_path, ("serve",), {})


@pytest.mark.parametrize(
    ("constant", "budget", "chosen", "because"),
    [
        (THEIRS, 1752, "constants", "they answer 2.00 times the images at batch 1, for 1,752 MB"),
        (THEIRS, 1751, "variables", "constants take 1,752 MB more in a model server, and 1,751"),
        (
            dataclasses.replace(THEIRS, images_per_s=SPEEDS | {"1": 27.0, "8": 500.0}),
            9000,
            "variables",
            "constants answer 1.08 times the images at batch 1, and less than 1.1",
        ),
        (
            dataclasses.replace(THEIRS, held=200_000_000),
            1,
            "constants",
            "for -38 MB more in a model server, of 1 allowed",
        ),
    ],
)
def test_what_is_chosen(constant, budget, chosen, because):
    found, why = decide(OURS, constant, budget)
    assert found == chosen and because in why


@pytest.mark.slow
def test_a_version_has_them_where_they_pay(
    deep, dataset, run_of, asked, as_measured, tmp_path, tmp_path_factory, launch_modelserver
):
    as_measured()
    run = run_of(deep)
    recipe = dataclasses.replace(
        run.recipe,
        optimize="bf16,gpu",
        optimize_drop=LOOSE.drop,
        optimize_margin=LOOSE.margin,
        optimize_constants=BUDGET,
    )
    private, public = key_pair(tmp_path_factory.mktemp("keys"), "ours")
    version = publish.publish(
        deep,
        dataset,
        dataclasses.replace(run, recipe=recipe),
        tmp_path,
        "deep",
        key=SigningKey(private),
    )
    assert TrustedKeys(public).check(version, "deep", 1) == SigningKey(private).id

    graphs = json.loads((version / "metrics.json").read_text())["graphs"]
    facts = graphs[KEY]
    assert facts["folded"] == 5 and facts["precision"] == "bfloat16"
    assert facts["images_per_s"] == THEIRS.images_per_s and facts["measures"]["label"]
    assert facts["weights"]["in"] == "constants"
    assert facts["weights"]["variables"] == dataclasses.asdict(OURS)
    assert facts["weights"]["constants"] == dataclasses.asdict(THEIRS)
    assert "weights" not in graphs["serve"] and "weights" not in graphs[key("gpu")]
    said = (
        "weights as constants, as they answer 2.00 times the images at batch 1, for 1,752 MB more "
        "in a model server, of 2,000 allowed (variables 56.0 MB, in a model server 238 MB, images "
        "a second: 25 at 1, 78 at 8, 82 at 32; constants 56.0 MB, in a model server 1,990 MB, "
        "images a second: 50 at 1, 78 at 8, 82 at 32)"
    )
    assert said in (version / "model-card.md").read_text() and said in table(tmp_path)

    assert halves(version, KEY, "VarHandleOp") == 0 < halves(version, KEY, "Const")
    assert not [*version.glob(".*half*")]
    signatures = read_signatures(version)
    with Session(version) as first, Session(version, KEY.split(",")) as second:
        for name, trial in asked(signatures).items():
            for output, array in second.run(name, trial.inputs).items():
                assert array.shape == first.run(name, trial.inputs)[output].shape

    server = launch_modelserver(f"--model_repository={tmp_path}", f"--saved_model_tags={KEY}")
    records = len([*tf.data.TFRecordDataset(str(version / WARMUP_FILE))])
    assert f"Ran {records} warmup records of {version / WARMUP_FILE} in " in server.log
    server.terminate()


class TestVariablesStay:
    """Where constants do not pay, and the reason on the card."""

    def held_in_variables(self, version: Path, facts) -> str:
        assert facts["weights"]["in"] == "variables" and facts["memory"] > 0
        assert halves(version, KEY, "VarHandleOp") > 0 == halves(version, KEY, "Const")
        assert not [*version.glob(".*half*")]
        return facts["weights"]["because"]

    @pytest.mark.slow
    def test_where_they_take_more_than_is_allowed(self, exported, as_measured, tmp_path):
        as_measured()
        facts = exported(500)
        assert "and 500 are allowed" in self.held_in_variables(tmp_path, facts)
        assert facts["weights"]["constants"] == dataclasses.asdict(THEIRS)
        assert facts["images_per_s"] == SPEEDS

    @pytest.mark.slow
    def test_where_what_they_take_cannot_be_measured(self, exported, monkeypatch, tmp_path):
        def measured(*_):
            raise NotHeld("a process that answers every signature ends with status -9")

        monkeypatch.setattr(constants, "computes_bfloat16", lambda: True)
        monkeypatch.setattr(constants, "compare", measured)
        assert "status -9" in self.held_in_variables(tmp_path, exported(BUDGET))

    @pytest.mark.slow
    def test_where_there_are_no_instructions_to_measure_by(self, exported, monkeypatch, tmp_path):
        monkeypatch.setattr(constants, "computes_bfloat16", lambda: False)
        because = self.held_in_variables(tmp_path, exported(BUDGET))
        assert because == "the machine that published it has no bfloat16 instructions"

    @pytest.mark.slow
    def test_where_the_file_would_be_too_large(self, exported, as_measured, monkeypatch, tmp_path):
        as_measured()
        monkeypatch.setattr(constants, "_MOST_BYTES", 100_000)
        because = self.held_in_variables(tmp_path, exported(BUDGET))
        assert "would make saved_model.pb 0.0 GB large" in because

    @pytest.mark.slow
    def test_where_the_graph_with_them_does_not_pass_the_gate(
        self, exported, as_measured, monkeypatch, tmp_path
    ):
        answers = half_precision._answers_refusal

        def refusal(session, asked):
            nodes = session._session.graph.get_operations()
            constant = any(
                node.type == "Const" and node.outputs[0].dtype == tf.bfloat16 for node in nodes
            )
            return "label is not finite" if constant else answers(session, asked)

        as_measured()
        monkeypatch.setattr(half_precision, "_answers_refusal", refusal)
        because = self.held_in_variables(tmp_path, exported(BUDGET))
        assert because == "as constants, label is not finite"

    @pytest.mark.slow
    def test_where_a_layer_assigns_to_its_weights(self, dataset, as_measured, tmp_path):
        class Counting(keras.layers.Dense):
            def call(self, inputs):
                self.bias.assign(self.bias)
                return super().call(inputs)

        as_measured()
        image = keras.Input((8, 8, 1), name="image")
        x = Counting(16)(keras.layers.Flatten()(image))
        x = keras.layers.Dense(10, activation="softmax", name="label")(x)
        wanted = HalfPrecision(["bf16"], of(dataset), LOOSE, BUDGET)
        rows = dataset.test.take(slice(4)).inputs
        exported = Export(keras.Model(image, x), HEADS, rows, images={}, half=wanted)
        facts = exported.write(tmp_path, lambda _: None).graphs[KEY]
        because = self.held_in_variables(tmp_path, facts)
        assert "as constants, the model cannot compute in it (AttributeError" in because

    @pytest.mark.slow
    def test_where_nobody_asked_for_them(self, exported, as_measured, tmp_path):
        as_measured()
        assert "weights" not in exported(0) and halves(tmp_path, KEY, "VarHandleOp") > 0


@pytest.mark.slow
def test_an_adopted_model_has_them_too(as_measured, tmp_path):
    as_measured()
    keras.utils.set_random_seed(0)
    sizes = keras.Input((6,))
    x = keras.layers.BatchNormalization()(keras.layers.Dense(24)(sizes))
    version = training.publish(
        keras.Model(sizes, keras.layers.Dense(3, activation="softmax")(x)),
        model_repository=tmp_path,
        name="own",
        optimize="bf16",
        optimize_margin=1.0,
        optimize_constants=BUDGET,
        say=lambda _: None,
    )
    facts = json.loads((version / "metrics.json").read_text())["graphs"][KEY]
    assert facts["weights"]["in"] == "constants"
    assert halves(version, KEY, "VarHandleOp") == 0 < halves(version, KEY, "Const")


def test_there_must_be_room_for_both(deep, dataset, run_of, monkeypatch, tmp_path):
    wanted: list[int] = []

    def publish_directory(_directory, _write, needed, _key):
        wanted.append(needed)

    monkeypatch.setattr(publish, "publish_directory", publish_directory)
    run = run_of(deep)
    for budget_mb in (0, BUDGET):
        recipe = dataclasses.replace(
            run.recipe, optimize="bf16", optimize_constants=budget_mb, novelty=False
        )
        asked_for = dataclasses.replace(run, recipe=recipe)
        publish.publish(deep, dataset, asked_for, tmp_path, "deep")
    weights = sum(variable.value.numpy().nbytes for variable in deep.variables)
    assert wanted[1] - wanted[0] == weights // 2

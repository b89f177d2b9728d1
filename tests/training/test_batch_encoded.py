"""`batch_encoded`: the network behind the decoding of `encoded`, for several calls at once."""

import dataclasses
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tensorflow.core.protobuf.config_pb2 import ConfigProto

import models
import training
from service.modelserver.servable import Run, Servable, load_servable
from sluice.wire.protos.serving_pb2 import ModelSpec, PredictRequest
from sluice.wire.protos.serving_pb2_grpc import PredictionServiceStub
from sluice.wire.saved_model import read_signatures
from sluice.wire.tensors import decode_tensor, encode_tensor
from training.data.heads import Classes, Number
from training.errors import CannotAdopt
from training.novelty.fitting import fit
from training.publishing import batching, saved_model
from training.publishing.agreement import Limits
from training.publishing.export import Export
from training.publishing.half_precision import HalfPrecision
from training.publishing.held_out import HeldOut
from training.publishing.listing import as_json, table
from training.publishing.publish import publish
from training.publishing.report import described_signature
from training.publishing.saved_model import Session
from training.publishing.trials import encode_png

ROWS = 4  # joined at most, here
LOOSE = Limits(drop=100, margin=1)  # of a model that has learnt nothing
RNG = np.random.default_rng(3)
PICTURES = RNG.integers(256, size=(19, 8, 8, 1), dtype=np.uint8)
FILES = np.array([encode_png(picture) for picture in PICTURES], object)
NUMBERS = RNG.normal(size=(len(FILES), 3)).astype(np.float32)
HEADS = {"kind": Classes(("cat", "dog", "fish")), "age": Number()}


@pytest.fixture(scope="module")
def beside() -> keras.Model:
    """A picture and numbers -> a class and a number."""
    keras.utils.set_random_seed(2)
    image, numbers = keras.Input((8, 8, 1), name="image"), keras.Input((3,), name="numbers")
    x = layers.Flatten()(layers.Rescaling(1 / 255)(image))
    x = layers.Dense(6, activation="tanh")(layers.Concatenate()([x, numbers]))
    kind, age = layers.Dense(3, "softmax", name="kind")(x), layers.Dense(1, name="age")(x)
    return keras.Model([image, numbers], {"kind": kind, "age": age})


def exported(model, directory, rows=ROWS, **more):
    """The version, and the lines that were said."""
    said: list[str] = []
    tried = {"image": PICTURES, "numbers": NUMBERS}
    given = {each.name: tried[each.name] for each in model.inputs}
    heads = {name: HEADS[name] for name in models.heads(model)}
    images = {"image": PICTURES.shape[1:]}
    export = Export(model, heads, given, images, batch_encoded=rows, **more)
    found = export.write(directory, said.append)
    return found, said


def operations(version: Path) -> list[str]:
    """The types of those of `encoded`'s joining, one for each graph of the version."""
    proto = saved_model.saved_model_pb2.SavedModel.FromString(
        (version / "saved_model.pb").read_bytes()
    )
    return [
        node.op
        for graph in proto.meta_graphs
        for function in graph.graph_def.library.function
        for node in function.node_def
        if node.op == "BatchFunction"
    ]


def ask(servable: Servable, inputs, signature="encoded", deadline=None) -> dict[str, np.ndarray]:
    definition = servable.signatures[signature]
    fetches = {name: info.name for name, info in definition.outputs.items()}
    feeds = {definition.inputs[name].name: np.asarray(each) for name, each in inputs.items()}
    answer = servable.run(Run(feeds, tuple(fetches.values())), deadline)
    return {name: answer[tensor] for name, tensor in fetches.items()}


def loaded(version: Path, threads: int = 0, **more) -> Servable:
    config = ConfigProto(inter_op_parallelism_threads=threads, device_count={"GPU": 0})
    return load_servable(version, ["serve"], config, **more)


def test_answers_and_signatures_are_the_same_as_without(beside, tmp_path):
    many = {
        "image": RNG.integers(256, size=(300, 8, 8, 1), dtype=np.uint8),
        "numbers": RNG.normal(size=(300, 3)).astype(np.float32),
    }
    seen, held_out = (
        {name: array[part] for name, array in many.items()}
        for part in (slice(200), slice(200, 300))
    )
    novelty = fit(beside, HEADS, seen, held_out)
    for name, rows in (("joined", ROWS), ("alone", 0)):
        (tmp_path / name).mkdir()
        exported(beside, tmp_path / name, rows, novelty=novelty)
    assert [operations(tmp_path / name) for name in ("joined", "alone")] == [["BatchFunction"], []]
    described = [
        {each: described_signature(found) for each, found in read_signatures(directory).items()}
        for directory in (tmp_path / "joined", tmp_path / "alone")
    ]
    assert described[0] == described[1]
    assert {"kind", "age", "novelty"} < {*described[0]["encoded"]["outputs"]}
    with Session(tmp_path / "joined") as joined, Session(tmp_path / "alone") as alone:
        for count in (1, ROWS, len(FILES), 0):  # more than are joined, and none
            rows = {"image": FILES[:count], "numbers": NUMBERS[:count]}
            check_alike(*(session.run("encoded", rows) for session in (joined, alone)))


def check_alike(one, other):
    assert one.keys() == other.keys()
    for name, answer in one.items():
        if answer.dtype == object:
            np.testing.assert_array_equal(answer, other[name], name)
        else:
            rtol = 1e-3 if name == "novelty" else 1e-5
            np.testing.assert_allclose(answer, other[name], rtol, 1e-6, err_msg=name)


def test_a_version_says_that_it_joins(dataset, model, run_of, tmp_path):
    run = run_of(model)
    run = dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, batch_encoded=ROWS))
    version = publish(model, dataset, run, tmp_path, "digits")
    assert "`encoded` joins calls, up to 4 rows" in (version / "model-card.md").read_text()
    assert "digits 1, graph serve: `encoded` joins calls, up to 4 rows" in table(tmp_path)
    [found] = as_json(tmp_path)["models"]
    assert found["versions"][0]["graphs"]["serve"]["batch_encoded"] == ROWS


def test_each_graph_joins_by_itself(beside, tmp_path):
    tried = HeldOut({"image": PICTURES, "numbers": NUMBERS}, {}, {})
    found, said = exported(beside, tmp_path, half=HalfPrecision(["bf16", "gpu"], tried, LOOSE))
    assert not said
    assert [graph["batch_encoded"] for graph in found.graphs.values()] == [ROWS] * 3
    assert operations(tmp_path) == ["BatchFunction"] * 3


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> tuple[Path, list[Callable[[np.ndarray], np.ndarray]]]:
    """Two versions with weights of their own, and what each answers to pictures."""
    directory, answers = tmp_path_factory.mktemp("joining"), []
    for number in (1, 2):
        keras.utils.set_random_seed(number)
        model = models.build("cnn_functional", (8, 8, 1), 3, filters=2, units=4)
        (directory / "pets" / f"{number}").mkdir(parents=True)
        saved_model.write(
            model,
            {"label": HEADS["kind"]},
            directory / "pets" / f"{number}",
            batch_encoded=ROWS,
        )
        answers.append(model.predict)
    (directory / "models.config").write_text(
        f'model_config_list {{ config {{ name: "pets" base_path: "{directory}/pets" '
        'model_platform: "tensorflow" model_version_policy { all {} } } }'
    )
    return directory, answers


@pytest.mark.parametrize(
    "flags",
    [(), ("--enable_batching",), ("--tensorflow_inter_op_parallelism=1",)],
    ids=["as it is", "joined by the server too", "one thread"],
)
def test_a_damaged_file_fails_alone_and_versions_keep_apart(repository, launch_modelserver, flags):
    directory, answers = repository
    server = launch_modelserver(
        f"--model_config_file={directory}/models.config", "--grpc_max_threads=64", *flags
    )
    expected = [answer(PICTURES.astype(np.float32), verbose=0) for answer in answers]
    sizes = [1, 2, 7]
    with grpc.insecure_channel(server.address) as channel:
        predict = PredictionServiceStub(channel).Predict

        def asked(place):
            version, rows = 1 + place % 2, sizes[place % 3]
            start = place % (len(FILES) - rows)
            files = FILES[start : start + rows].copy()
            if bad := place % 5 == 0:
                files[-1] = files[-1][:40]
            request = PredictRequest(
                model_spec=ModelSpec(
                    name="pets", signature_name="encoded", version={"value": version}
                )
            )
            request.inputs["image"].CopyFrom(encode_tensor(files))
            try:
                found = decode_tensor(predict(request, timeout=120).outputs["label"])
            except grpc.RpcError as error:
                return bad and error.code() == grpc.StatusCode.INVALID_ARGUMENT
            wanted = expected[version - 1][start : start + rows]
            return not bad and np.allclose(found, wanted, 1e-4, 1e-5)

        with ThreadPoolExecutor(64) as pool:
            assert all(pool.map(asked, range(400)))
    assert server.terminate() == 0, server.log


class Slow(tf.Module):
    """y = x after steps[0] rounds of work; joined: how many rows it was computed with."""

    @tf.function(
        autograph=False,
        input_signature=[
            tf.TensorSpec([None], tf.float32, "x"),
            tf.TensorSpec([None], tf.int32, "steps"),
        ],
    )
    def predict(self, x, steps):
        return batching.joined(self.network, {"x": x, "steps": steps}, ROWS, "slow")

    def network(self, x, steps):
        _, work = tf.while_loop(
            lambda step, _: step < tf.reduce_max(steps),
            lambda step, work: (step + 1, tf.nn.l2_normalize(work @ work)),
            (0, tf.random.stateless_uniform([200, 200], (1, 2))),
        )
        return {"y": x + 0 * work[0, 0], "joined": tf.fill(tf.shape(x), tf.shape(x)[0])}


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    module, directory = Slow(), tmp_path_factory.mktemp("slow")
    tf.saved_model.save(module, str(directory), signatures=module.predict)
    servable = loaded(directory)
    yield lambda x, steps=0, **more: ask(
        servable,
        {"x": np.float32(x), "steps": np.full(len(x), steps, np.int32)},
        "serving_default",
        **more,
    )
    servable.close()


def test_calls_are_joined_and_no_more_rows_than_allowed(slow):
    joined: set[int] = set()
    deadline = time.monotonic() + 120
    with ThreadPoolExecutor(16) as pool:
        while ROWS not in joined:
            assert time.monotonic() < deadline, "nothing was joined"
            for place, answer in enumerate(pool.map(lambda x: slow([x], 5), range(64))):
                assert answer["y"] == [place]
                joined |= {*answer["joined"].tolist()}
    assert max(joined) == ROWS
    assert slow(range(11))["y"].tolist() == [*range(11)]  # which is asked in pieces


def test_a_call_whose_time_is_over_ends_no_other_that_it_was_joined_with(slow):
    with ThreadPoolExecutor(16) as pool:
        calls = [pool.submit(slow, [x], 2000) for x in range(12)]
        late = [pool.submit(slow, [x], 2000, deadline=time.monotonic() + 0.2) for x in range(4)]
        assert [call.result()["y"].tolist() for call in calls] == [[x] for x in range(12)]
        assert [call.result()["y"].tolist() for call in late] == [[x] for x in range(4)]


def test_numbers_of_a_wrong_size_fail_alone_where_no_server_looks(beside, tmp_path):
    exported(beside, tmp_path)
    servable = loaded(tmp_path, check_shapes=False)

    def asked(place):
        numbers = NUMBERS[:1, :2] if place % 4 == 0 else NUMBERS[:1]
        files = FILES[:2] if place % 4 == 1 else FILES[:1]
        try:
            return ask(servable, {"image": files, "numbers": numbers})["kind"].shape
        except tf.errors.InvalidArgumentError:
            return None

    with ThreadPoolExecutor(16) as pool:
        found = [*pool.map(asked, range(100))]
    assert found == [(1, 3) if place % 4 > 1 else None for place in range(100)]
    servable.close()


def mixing() -> keras.Model:
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Flatten()(layers.Rescaling(1 / 255)(image))
    x = layers.Dense(4)(x - keras.ops.mean(x, axis=0, keepdims=True))
    return keras.Model(image, {"kind": layers.Dense(3, "softmax", name="kind")(x)})


def test_rows_that_hang_on_each_other_are_not_joined(tmp_path):
    keras.utils.set_random_seed(4)
    found, said = exported(mixing(), tmp_path)
    assert said == ["`encoded` joins no calls: kind of a row is another beside other rows"]
    assert operations(tmp_path) == []
    assert found.graphs == {"serve": {"folded": 0}}


def test_what_one_number_makes_fail_is_not_joined():
    image = keras.Input((8, 8, 1), name="image")
    word = keras.Input((2,), name="word", dtype="int32")
    x = layers.Flatten()(layers.Embedding(5, 3)(word))
    model = keras.Model([image, word], layers.Concatenate()([x, layers.Flatten()(image)]))
    assert "word is int32" in batching.why_not(model, ["image"], {})
    length = keras.Input((None,), name="length")
    assert "several sizes" in batching.why_not(keras.Model(length, length * 2), ["length"], {})
    assert batching.why_not(keras.Model(length, length * 2), [], {}) == "it takes no files"


def test_a_model_of_ones_own_is_published_with_it(tmp_path):
    keras.utils.set_random_seed(5)
    model = models.build("cnn_functional", (8, 8, 1), 3, filters=2, units=4)
    model.save(tmp_path / "pets.keras")
    version = training.publish(
        tmp_path / "pets.keras",
        model_repository=tmp_path / "repository",
        labels=["cat", "dog", "fish"],
        preprocess="raw",
        batch_encoded=ROWS,
        say=lambda _: None,
    )
    assert operations(version) == ["BatchFunction"]
    facts = json.loads((version / "metrics.json").read_text())
    assert facts["graphs"]["serve"]["batch_encoded"] == ROWS
    with pytest.raises(CannotAdopt, match="--batch-encoded cannot be put into it"):
        training.publish(version, model_repository=tmp_path, name="again", batch_encoded=ROWS)

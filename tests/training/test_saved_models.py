"""SavedModels that other programs wrote, in all the ways there are: published, or told why not."""

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tensorflow.core.protobuf import saved_model_pb2

import training
from sluice.wire.saved_model import read_signatures
from training.adopting import asking, saved_models
from training.adopting import publish as adopting
from training.errors import CannotAdopt, DataError, PublishError
from training.publishing.saved_model import Session
from training.publishing.trials import encode_png

v1 = tf.compat.v1


@pytest.fixture(scope="module")
def asker() -> Iterator[asking.Asker]:
    with asking.Asker() as asker:
        yield asker


@pytest.fixture
def kept(asker: asking.Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process asks for all tests, each of which would wait for its own to load TensorFlow."""
    monkeypatch.setattr(adopting, "Asker", lambda: nullcontext(asker))


one_process = pytest.mark.usefixtures("kept")


def publish(model: Path | keras.Model, said: list[str] | None = None, **options: Any) -> Path:
    """Into a repository beside it, under the name `published`."""
    where = model.parent / "repository" if isinstance(model, Path) else options.pop("beside")
    say = said.append if said is not None else lambda _line: None
    return training.publish(model, model_repository=where, name="published", say=say, **options)


def ask(version: Path, signature: str = "serving_default", **inputs: Any) -> dict[str, Any]:
    with Session(version) as session:
        return session.run(signature, inputs)


def save(path: Path, function: Any, *specs: tf.TensorSpec, **attributes: Any) -> Path:
    """A SavedModel of one function; its first argument is what holds `attributes`."""
    module = tf.Module()
    for name, value in attributes.items():
        setattr(module, name, value)
    traced = tf.function(lambda *inputs: function(module, *inputs), autograph=False)
    tf.saved_model.save(module, str(path), signatures=traced.get_concrete_function(*specs))
    return path


def write_tf1(
    path: Path,
    *tags: str,
    sparse: bool = False,
    method: str = "tensorflow/serving/predict",
    rows: int | None = None,
    waits: bool = False,
) -> Path:
    """As programs of TensorFlow 1 write it: a session's graph, with a variable, and a table that a
    start-up operation fills; and for a queue that nobody fills, where it `waits`."""
    with tf.Graph().as_default(), v1.Session() as session:
        words = v1.placeholder(tf.string, [rows], name="words")
        keys, numbers = tf.constant(["cat", "dog"]), tf.constant([1.0, 2.0])
        table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(keys, numbers), default_value=0.0
        )
        scale = v1.get_variable("scale", initializer=10.0)
        found = table.lookup(words) * scale
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        tensors = {"found": tf.sparse.from_dense(found) if sparse else found}
        signature = v1.saved_model.build_signature_def(
            {"words": v1.saved_model.build_tensor_info(words)},
            {name: v1.saved_model.build_tensor_info(each) for name, each in tensors.items()},
            method,
        )
        start = [v1.tables_initializer()]
        if waits:
            start.append(tf.queue.FIFOQueue(1, [tf.float32]).dequeue())
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(
            session, list(tags), {"serving_default": signature}, main_op=tf.group(*start)
        )
        builder.save()
    return path


@one_process
def test_one_of_tensorflow_1_with_its_table_and_its_variable(tmp_path: Path) -> None:
    source = write_tf1(tmp_path / "old", "serve")
    version = publish(source)
    shutil.rmtree(source)
    answer = ask(version, words=np.array([b"dog", b"cow"], object))
    assert answer["found"].tolist() == [20, 0]


@one_process
def test_a_table_that_is_read_from_a_file_takes_the_file_along(tmp_path: Path) -> None:
    vocabulary = tmp_path / "words.txt"
    vocabulary.write_text("cat\ndog\n")
    read = tf.lookup.TextFileInitializer(
        str(vocabulary),
        tf.string,
        tf.lookup.TextFileIndex.WHOLE_LINE,
        tf.int64,
        tf.lookup.TextFileIndex.LINE_NUMBER,
    )
    source = save(
        tmp_path / "words",
        lambda module, words: {"number": module.table.lookup(words)},
        tf.TensorSpec([None], tf.string, "words"),
        table=tf.lookup.StaticHashTable(read, default_value=-1),
    )
    version = publish(source)
    shutil.rmtree(source)
    vocabulary.unlink()
    answer = ask(version, words=np.array([b"dog", b"cow"], object))
    assert answer["number"].tolist() == [1, -1]


@one_process
def test_a_version_of_ours_is_published_again(version: Path, tmp_path: Path) -> None:
    said: list[str] = []
    again = training.publish(version, model_repository=tmp_path, name="again", say=said.append)
    assert {*read_signatures(again)} == {*read_signatures(version)}
    assert not any("neither tried" in line for line in said)
    pixels = np.zeros((1, 8, 8, 1), np.uint8)
    files = np.array([encode_png(pixels[0])], object)
    assert np.allclose(
        ask(again, "encoded", image=files)["label"], ask(version, "encoded", image=files)["label"]
    )


def sum_of_features(_: Any, examples: tf.Tensor) -> Mapping[str, tf.Tensor]:
    """As an Estimator's export takes its rows."""
    parsed = tf.io.parse_example(examples, {"x": tf.io.FixedLenFeature([2], tf.float32)})
    return {"sum": tf.reduce_sum(parsed["x"], axis=1)}


@one_process
def test_one_that_takes_no_random_values_is_given_rows(tmp_path: Path) -> None:
    spec = tf.TensorSpec([None], tf.string, "examples")
    source = save(tmp_path / "examples", sum_of_features, spec)
    with pytest.raises(CannotAdopt, match=r"no signature of .* answers .*--sample ROWS\.npz"):
        publish(source)
    numbers = tf.train.Feature(float_list=tf.train.FloatList(value=[1, 2]))
    example = tf.train.Example(features=tf.train.Features(feature={"x": numbers}))
    rows = tmp_path / "rows.npz"
    np.savez(rows, examples=np.array([example.SerializeToString()]))
    version = publish(source, samples=[rows])
    assert "your samples" in (version / "model-card.md").read_text()
    np.savez(rows, other=np.zeros(1))
    with pytest.raises(DataError, match=r"hold other, .* \(serving_default: examples\)"):
        publish(source, samples=[rows])
    (tmp_path / "cat.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"cat\.png is no \.npz file"):
        publish(source, samples=[tmp_path / "cat.png"])


def rename_an_operation(path: Path) -> Path:
    """As if it had been written where TensorFlow had one more."""
    proto = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    [graph] = proto.meta_graphs
    nodes = [*graph.graph_def.node]
    for function in graph.graph_def.library.function:
        nodes += function.node_def
    for node in nodes:
        if node.op == "Mul":
            node.op = "FuzzyMul"
    (path / "saved_model.pb").write_bytes(proto.SerializeToString())
    return path


def with_python(path: Path) -> Path:
    def doubled(_: Any, x: tf.Tensor) -> Mapping[str, tf.Tensor]:
        return {"y": tf.ensure_shape(tf.numpy_function(lambda x: 2 * x, [x], tf.float32), [None])}

    return save(path, doubled, tf.TensorSpec([None], tf.float32, "x"))


def scaled(path: Path, *sizes: int | None) -> Path:
    spec = tf.TensorSpec(sizes, tf.float32, "x")
    return save(path, lambda _, x: {"y": x * 2}, spec)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: write_tf1(path, "train"), "a graph for train and none for 'serve'.*export"),
        (lambda path: write_tf1(path, "serve", "tpu"), r"a graph for serve\+tpu and none"),
        (lambda path: write_tf1(path, "serve", sparse=True), "found is sparse or ragged.*dense"),
        (
            lambda path: write_tf1(path, "serve", method="tensorflow/serving/classify"),
            "it answers classify alone",
        ),
        (lambda path: write_tf1(path, "serve", rows=1), r"words has no free first axis.*\[None, …"),
        (lambda path: scaled(path), "x has no free first axis"),
        (
            lambda path: rename_an_operation(write_tf1(path, "serve")),
            "operation FuzzyMul, which TensorFlow alone does not have.*export",
        ),
        (
            lambda path: rename_an_operation(scaled(path, None)),
            "operation FuzzyMul, which TensorFlow alone does not have.*export",
        ),
        (with_python, r"calls Python \(tf\.py_function.*keras\.ops"),
    ],
)
@one_process
def test_one_that_cannot_be_served_is_told_why_and_leaves_nothing(
    tmp_path: Path, write: Callable[[Path], Path], words: str
) -> None:
    source = write(tmp_path / "source")
    with pytest.raises((CannotAdopt, PublishError), match=words) as raised:
        publish(source)
    assert "\n" not in str(raised.value)
    repository = tmp_path / "repository"
    assert not repository.exists() or not [*repository.iterdir()]


class Held(layers.Layer):
    """Looks words up, and scales, in ways that Keras does not know of."""

    def __init__(self) -> None:
        super().__init__()
        initializer = tf.lookup.KeyValueTensorInitializer(["cat"], [3.0])
        self.table = tf.lookup.StaticHashTable(initializer, default_value=0.0)
        self.scale = tf.Variable(2.0)

    def call(self, words):
        return self.table.lookup(words) * self.scale

    def compute_output_spec(self, words):
        return keras.KerasTensor(words.shape, "float32")


class NotHeld(layers.Layer):
    def call(self, x):
        return x * SCALE


SCALE = tf.Variable(2.0)


class Numpy(layers.Layer):
    def call(self, x):
        return tf.ensure_shape(tf.numpy_function(lambda x: 2 * x, [x], tf.float32), x.shape)


def test_what_a_layer_holds_besides_weights_is_published_too(tmp_path: Path) -> None:
    words = keras.Input((1,), dtype="string", name="words")
    version = publish(keras.Model(words, {"found": Held()(words)}), beside=tmp_path)
    answer = ask(version, words=np.array([[b"cat"], [b"cow"]], object))
    assert answer["found"].tolist() == [[6], [0]]


@pytest.mark.parametrize(
    ("layer", "words"),
    [(NotHeld, "attribute of a layer"), (Numpy, "calls Python")],
)
def test_what_no_layer_holds_is_told(tmp_path: Path, layer: type, words: str) -> None:
    x = keras.Input((2,), name="x")
    with pytest.raises(PublishError, match=words) as raised:
        publish(keras.Model(x, {"y": layer()(x)}), beside=tmp_path)
    assert "\n" not in str(raised.value)


@one_process
def test_one_that_answers_otherwise_each_time_is_told_of(tmp_path: Path) -> None:
    source = save(
        tmp_path / "random",
        lambda _module, x: {"y": x + tf.random.normal(tf.shape(x))},
        tf.TensorSpec([None, 2], tf.float32, "x"),
    )
    said: list[str] = []
    training.publish(source, model_repository=tmp_path / "repository", say=said.append)
    assert "serving_default: answers the same rows otherwise each time" in said[-1]


def without_end(_: Any, x: tf.Tensor) -> Mapping[str, tf.Tensor]:
    return {"y": tf.while_loop(lambda _: True, lambda y: [tf.sin(y)], [x])[0]}


def fatal(_: Any, x: tf.Tensor) -> Mapping[str, tf.Tensor]:
    with tf.control_dependencies([tf.raw_ops.Abort(error_msg="a check that failed")]):
        return {"y": tf.identity(x)}


def waiting(_: Any, x: tf.Tensor) -> Mapping[str, tf.Tensor]:
    queue = tf.raw_ops.FIFOQueueV2(component_types=[tf.float32], shapes=[()])
    [found] = tf.raw_ops.QueueDequeueV2(handle=queue, component_types=[tf.float32])
    return {"y": x + found}


def waiting_later(module: Any, x: tf.Tensor) -> Mapping[str, tf.Tensor]:
    """It answers the first that asks."""
    if not hasattr(module, "asked"):
        module.asked = tf.Variable(0)
    first = tf.equal(module.asked.assign_add(1), 1)
    return {"y": tf.cond(first, lambda: x, lambda: waiting(module, x)["y"])}


@one_process
def test_one_that_answers_once_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "_WAIT_S", 5)
    source = save(tmp_path / "once", waiting_later, tf.TensorSpec([None], tf.float32, "x"))
    said: list[str] = []
    with contextlib.suppress(PublishError):  # a later step may find out too
        training.publish(source, model_repository=tmp_path / "repository", say=said.append)
    assert any("answers the same rows otherwise each time" in line for line in said)


def test_each_answer_may_compute_for_as_long(
    tmp_path: Path, asker: asking.Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, said = asker._connection, []

    def receive() -> Any:
        said.append(connection.recv())
        return said[-1]

    heard = SimpleNamespace(send=connection.send, recv=receive)
    monkeypatch.setattr(asker, "_connection", heard)
    source = scaled(tmp_path / "scaled", None)
    asker.ask(source, source, saved_models.requests_of(source, read_signatures(source), []))
    assert said[:-1] == ["to be loaded", *["to answer serving_default"] * 3]


def test_one_that_waits_when_it_is_loaded_is_told_of(
    tmp_path: Path, asker: asking.Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "_WAIT_S", 3)
    for name, waits, words in (
        ("quick", False, "no signature of .*quick answers"),  # in this time it is loaded
        ("old", True, "old waits when it is loaded"),
    ):
        source = write_tf1(tmp_path / name, "serve", waits=waits)
        with pytest.raises(CannotAdopt, match=words):
            asker.ask(source, source, {})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "words"),
    [
        (without_end, r"more than 3 s of computing to answer serving_default.*--sample ROWS\.npz"),
        (fatal, "ends the process in SIGABRT when it is to answer serving_default.*--sample"),
        (waiting, r"no signature of .* answers \(serving_default: .*Timed out.*--sample ROWS\.npz"),
    ],
)
def test_one_without_an_end_or_that_ends_the_process_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: Callable[..., Any], words: str
) -> None:
    monkeypatch.setattr(asking, "_SECONDS", 3)
    monkeypatch.setattr(asking, "_WAIT_S", 3 if function is waiting else 12)
    source = save(tmp_path / "source", function, tf.TensorSpec([None], tf.float32, "x"))
    with pytest.raises(CannotAdopt, match=words) as raised:
        publish(source)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "repository" / "published").exists()

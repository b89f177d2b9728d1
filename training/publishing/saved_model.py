"""Writing a SavedModel, and running it as a model server does: a TF1 session, no Keras."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow.python.client.timeline import Timeline

from sluice.wire.contract import (
    CLASSIFY_METHOD,
    CLASSIFY_SIGNATURE,
    DEFAULT_SIGNATURE,
    SERVING_TAG,
)
from sluice.wire.saved_model import BadSavedModel, read_signatures
from sluice.wire.tensors import Array
from sluice.wire.versions import SAVED_MODEL, published_versions
from training.data.heads import Head
from training.errors import PublishError
from training.inference import as_dtype
from training.novelty.spread import Spread
from training.optimising.rewriting import Rewriting
from training.publishing.signatures import ImageShapes, SignatureGraphs, input_name

_BATCH = 256
_RESOURCES = (tf.Variable, tf.saved_model.experimental.TrackableResource)


def write(
    model: keras.Model,
    heads: Mapping[str, Head],
    directory: Path,
    images: ImageShapes | None = None,
    explain_layer: str = "",
    spread: Spread | None = None,
    rewriting: Rewriting | None = None,
    weights: str = "weights",
    batch_encoded: int = 0,
) -> SignatureGraphs:
    """The model's signatures as a SavedModel in `directory`, of a model in float32.

    images, explain_layer, spread, batch_encoded: as `SignatureGraphs` takes them.
    rewriting: what of the model is another for the graph; None: nothing.
    weights: what they are called in the file, which two graphs may share.
    Raises PublishError where a part of the model cannot be saved.
    """
    root = tf.Module()
    rewriting = rewriting or Rewriting(model)
    # What is no variable of Keras's, as a TextVectorization's words, is saved only if named.
    root.resources = [
        value
        for layer in model._flatten_layers()
        for value in vars(layer).values()
        if isinstance(value, _RESOURCES)
    ]
    with rewriting.applied():
        traced = SignatureGraphs(model, heads, images, explain_layer, spread, batch_encoded)
        functions = traced.by_name()
    root.spread = traced.spread
    # Not the model itself: Keras's variables would be saved as copies, which a TF1 loader (TF
    # Serving's) restores in place of those that the graph reads.
    setattr(root, weights, rewriting.variables())
    try:
        tf.saved_model.save(root, str(directory), signatures=functions)
    except AssertionError as error:
        if "untracked" not in str(error):
            raise
        raise PublishError(
            "not published: the model computes with a tf.Variable or a lookup table that it does "
            "not hold, so that it would not be saved with it; keep it as an attribute of a layer"
        ) from error
    _correct(directory)
    return traced


def _correct(directory: Path) -> None:
    """TensorFlow writes predict signatures only, and TF Serving's Classify asks for its own; and it
    calls no input by a word of Python's own."""
    path = directory / SAVED_MODEL
    proto = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for graph in proto.meta_graphs:
        if CLASSIFY_SIGNATURE in graph.signature_def:
            graph.signature_def[CLASSIFY_SIGNATURE].method_name = CLASSIFY_METHOD
        for signature in graph.signature_def.values():
            for argument in [*signature.inputs]:
                if (name := input_name(argument)) != argument:
                    signature.inputs[name].CopyFrom(signature.inputs.pop(argument))
    path.write_bytes(proto.SerializeToString(deterministic=True))


def graphs(directory: Path) -> list[meta_graph_pb2.MetaGraphDef]:
    """Those that a model server loads of the SavedModel in `directory`: one, or none."""
    proto = saved_model_pb2.SavedModel.FromString((directory / SAVED_MODEL).read_bytes())
    return [each for each in proto.meta_graphs if [*each.meta_info_def.tags] == [SERVING_TAG]]


def live_version(model_directory: Path) -> Path | None:
    """The one that a model server takes: the newest whose SavedModel can be read."""
    for version in reversed([*published_versions(model_directory).values()]):
        with contextlib.suppress(OSError, BadSavedModel):
            if read_signatures(version):
                return version
    return None


class Session:
    """A loaded SavedModel; a context manager. tags: of the graph among those that it has.
    threads: that compute, 0 for as many as there are cores. timeout_s: that loading it and each
    answer may take, 0 for any time; beyond it, DeadlineExceededError."""

    def __init__(
        self,
        directory: Path,
        tags: Sequence[str] = (SERVING_TAG,),
        threads: int = 0,
        timeout_s: int = 0,
    ) -> None:
        # On the CPU, as the answers that it is compared with (trials.py).
        config = tf.compat.v1.ConfigProto(
            device_count={"GPU": 0},
            intra_op_parallelism_threads=threads,
            inter_op_parallelism_threads=threads,
            operation_timeout_in_ms=1000 * timeout_s,
        )
        self._session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        with self._session.graph.as_default():
            loaded = tf.compat.v1.saved_model.load(self._session, [*tags], str(directory))
        self._signatures = loaded.signature_def

    def run(self, signature: str, inputs: Mapping[str, Any], **traced: Any) -> dict[str, Array]:
        """Arrays by input name -> arrays by output name; traced: for TensorFlow's Session."""
        definition = self._signatures[signature]
        feeds = {definition.inputs[name].name: value for name, value in inputs.items()}
        fetches = {name: info.name for name, info in definition.outputs.items()}
        answer: dict[str, Array] = self._session.run(fetches, feeds, **traced)
        return answer

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """`serving_default`'s answers to any number of rows, of whatever dtype."""
        rows = len(next(iter(inputs.values())))
        taken = self._as_taken(inputs)
        answers = [
            self.run(
                DEFAULT_SIGNATURE,
                {name: array[start : start + _BATCH] for name, array in taken.items()},
            )
            for start in range(0, rows, _BATCH)
        ]
        return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}

    def memory(self, inputs: Mapping[str, Array]) -> int:
        """The most bytes that TensorFlow holds at once while `serving_default` answers these rows,
        weights included."""
        traced = tf.compat.v1.RunMetadata()
        full = tf.compat.v1.RunOptions(trace_level=tf.compat.v1.RunOptions.FULL_TRACE)
        rows = self._as_taken(inputs)
        self.run(DEFAULT_SIGNATURE, rows, options=full, run_metadata=traced)
        held = Timeline(traced.step_stats).analyze_step_stats().allocator_maximums
        return sum(each.num_bytes for each in held.values())

    def _as_taken(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {
            name: as_dtype(inputs[name], tf.as_dtype(info.dtype).name)
            for name, info in self._signatures[DEFAULT_SIGNATURE].inputs.items()
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

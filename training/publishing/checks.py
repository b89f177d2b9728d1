"""What a written SavedModel must pass before it is published."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from sluice.wire.contract import HEATMAP, NOVELTY
from sluice.wire.saved_model import read_signatures
from sluice.wire.tensors import Array
from training.errors import BreakingChange, PublishError, WrongAnswers
from training.publishing.saved_model import Session, graphs
from training.publishing.signatures import SignatureGraphs, input_name
from training.publishing.trials import Trials

_RTOL = 1e-5
_FOLDED_RTOL = 1e-4  # docs/graphs.md says what folding needs, and why
_NOVELTY_RTOL = 1e-3  # its square is what is left of the difference of larger ones
_FOLDED_OF_SCALE = 1e-5  # of a head's largest value, for values that are all but 0
_ATOL = 1e-6  # of probabilities: what float32 sums may differ by where a score is all but 0
_HEAT_ATOL = 2e-3  # half a step of 256: heat is a sum of products that all but cancel out
_PYTHON = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}  # operations that call it


def check_alone(directory: Path) -> None:
    """Raises PublishError for a SavedModel that computes with the Python of the process that wrote
    it, where it is right, and nowhere else."""
    for graph in graphs(directory):
        nodes = [*graph.graph_def.node]
        for function in graph.graph_def.library.function:
            nodes += function.node_def
        if calls := [node.name for node in nodes if node.op in _PYTHON]:
            raise PublishError(
                f"not published: {calls[0]} calls Python (tf.py_function, tf.numpy_function), and "
                f"a model server has none; write it with keras.ops or TensorFlow's own operations"
            )


def check_parity(directory: Path, trials: Trials, *, folded: bool = False) -> None:
    """Hold every signature's answers against the Keras model's own.

    folded: whether normalisations were folded, so that sums were rounded in other places.
    Raises WrongAnswers, naming signature, output and the worst row.
    """
    with Session(directory) as session:
        # Twice: a layer that draws random numbers may give the seed's own the first time.
        for signature, trial in [*trials.items()] * 2:
            answers = session.run(signature, trial.inputs)
            for output, expected in trial.expected.items():
                _compare(signature, output, answers[output], expected, folded=folded)


def _compare(
    signature: str, output: str, answered: Array, expected: Array, *, folded: bool
) -> None:
    if answered.shape != expected.shape:
        raise WrongAnswers(
            f"not published: signature {signature}, output {output} of the reloaded SavedModel is "
            f"{[*answered.shape]}, and the Keras model's {[*expected.shape]}. A layer that takes "
            f"the number of rows for another size does this, as TimeDistributed where the steps "
            f"may be any number: fix that size in keras.Input(shape), or call the layer without "
            f"TimeDistributed (a Dense takes steps as they are)"
        )
    if expected.dtype.kind not in "biufc":
        _compare_words(signature, output, answered, expected)
        return
    rtol = _NOVELTY_RTOL if output == NOVELTY else _FOLDED_RTOL if folded else _RTOL
    atol = _HEAT_ATOL if HEATMAP in output else _ATOL
    if folded and HEATMAP not in output:
        atol = max(atol, _FOLDED_OF_SCALE * float(np.abs(expected).max(initial=0)))
    close = np.isclose(answered, expected, rtol=rtol, atol=atol)
    if close.all():
        return
    gap = np.abs(answered - expected).reshape(len(expected), -1).max(axis=1)
    raise WrongAnswers(
        f"not published: signature {signature}, output {output} of the reloaded SavedModel is not "
        f"the Keras model's (rtol {rtol}): {int((~close).sum())} of {close.size} values differ, "
        f"row {int(gap.argmax())} by {float(gap.max()):.3g}. A layer that draws random numbers or "
        f"keeps state at inference does this: call it with training=False"
    )


def _compare_words(signature: str, output: str, answered: Array, expected: Array) -> None:
    same = np.equal(answered, expected)
    if not same.all():
        raise WrongAnswers(
            f"not published: signature {signature}, output {output} of the reloaded SavedModel is "
            f"not the Keras model's: {int((~same).sum())} of {same.size} strings differ"
        )


def check_compatible(directory: Path, previous: Path) -> None:
    """Raises BreakingChange where a client of `previous` would fail at `directory`."""
    _refuse_breaks(read_signatures(previous), read_signatures(directory), previous)


def _refuse_breaks(old: Mapping[str, Any], new: Mapping[str, Any], previous: Path) -> None:
    breaks = _breaking_changes(old, new)
    if breaks:
        raise BreakingChange(
            f"not published: clients of version {previous.name} would break: {'; '.join(breaks)}. "
            f"Publish under another --name, or allow it by --allow-breaking"
        )


def check_planned(graphs: SignatureGraphs, previous: Path) -> None:
    """As `check_compatible`, of what will be published of a model that is to be trained."""
    signatures = {name: planned(function) for name, function in graphs.by_name().items()}
    _refuse_breaks(read_signatures(previous), signatures, previous)


def planned(function: Any) -> meta_graph_pb2.SignatureDef:
    """The SignatureDef that a traced function will get."""
    return meta_graph_pb2.SignatureDef(
        inputs={
            input_name(spec.name): _tensor_info(spec)
            for spec in tf.nest.flatten(function.structured_input_signature)
        },
        outputs={name: _tensor_info(spec) for name, spec in function.structured_outputs.items()},
    )


def _tensor_info(spec: Any) -> meta_graph_pb2.TensorInfo:
    # What computes in half precision while it trains is published in float32.
    dtype = tf.float32 if spec.dtype in (tf.float16, tf.bfloat16) else spec.dtype
    return meta_graph_pb2.TensorInfo(
        dtype=dtype.as_datatype_enum, tensor_shape=spec.shape.as_proto()
    )


def _breaking_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """SignatureDefs by name -> what an old request would stumble over, in words."""
    breaks = []
    for name, before in old.items():
        if name not in new:
            breaks.append(f"signature {name} is gone")
            continue
        after = new[name]
        for side in ("inputs", "outputs"):
            earlier, later = dict(getattr(before, side)), dict(getattr(after, side))
            breaks += [
                f"{name}: {side[:-1]} {key} is gone"
                for key in earlier
                if key not in later and key != NOVELTY  # which any version may be without
            ]
            breaks += [
                f"{name}: {side[:-1]} {key} was {described(earlier[key])}, is "
                f"{described(later[key])}"
                for key in earlier.keys() & later.keys()
                if not _fits(earlier[key], later[key], exactly=side == "inputs")
            ]
        breaks += [
            f"{name}: input {key} is new, and old requests do not send it"
            for key in after.inputs
            if key not in before.inputs
        ]
    return breaks


def _fits(before: Any, after: Any, *, exactly: bool) -> bool:
    """The same dtype and rank; `exactly`: every size that was taken still is."""
    if before.dtype != after.dtype:
        return False
    old, new = sizes(before), sizes(after)
    if not exactly or old is None or new is None:
        return (old is None) == (new is None) and len(old or []) == len(new or [])
    return len(old) == len(new) and all(
        size in (-1, wanted) for wanted, size in zip(old, new, strict=True)
    )


def sizes(info: Any) -> list[int] | None:
    """A TensorInfo's sizes, -1 for any; None where even the rank is unknown."""
    shape = info.tensor_shape
    return None if shape.unknown_rank else [dim.size for dim in shape.dim]


def described(info: Any) -> str:
    """A TensorInfo's dtype and shape, `?` for any size.

    >>> from tensorflow.core.protobuf import meta_graph_pb2
    >>> image = tf.TensorShape([None, 28, 28, 1]).as_proto()
    >>> described(meta_graph_pb2.TensorInfo(dtype=tf.float32.as_datatype_enum, tensor_shape=image))
    'float32[?,28,28,1]'
    """
    listed = sizes(info)
    shape = "any shape" if listed is None else ",".join("?" if n < 0 else str(n) for n in listed)
    return f"{tf.as_dtype(info.dtype).name}[{shape}]"

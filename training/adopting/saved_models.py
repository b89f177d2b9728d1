"""A SavedModel directory -> a published version: copied whole, with the signatures that it has."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from sluice.wire.contract import SERVING_TAG
from sluice.wire.versions import SAVED_MODEL
from training.adopting import samples
from training.adopting.adopt import Wishes
from training.adopting.guessing import Tensor
from training.adopting.reading import reading
from training.errors import CannotAdopt
from training.publishing import checks, saved_model
from training.publishing.trials import Trials

_MISSING_OPERATION = re.compile(r"Op type not registered '([^']+)'")


def signatures_of(source: Path, wishes: Wishes) -> dict[str, Any]:
    """What it answers, by name. Raises CannotAdopt where nobody can ask it, or `wishes` asks for
    what cannot be put into it."""
    _refuse_wishes(wishes)
    with reading(source):
        signatures = saved_model.signature_defs(source)
        if not signatures:
            raise CannotAdopt(_why_no_signature(source))
    return signatures


def notes(signatures: Mapping[str, Any]) -> tuple[str, ...]:
    """What each signature is, in a line."""
    return tuple(
        f"{each}: {', '.join(definition.inputs)} -> {', '.join(definition.outputs)}, as they are"
        for each, definition in signatures.items()
    )


def trials_of(source: Path, signatures: Mapping[str, Any]) -> Trials:
    """A request of random numbers for each signature that takes any number of rows.

    Raises CannotAdopt where none does.
    """
    found: Trials = {}
    for each, definition in signatures.items():
        inputs = {
            name: Tensor(name, shape, tf.as_dtype(info.dtype).name)
            for name, info in definition.inputs.items()
            if (shape := _without_batch(info)) is not None
        }
        if definition.method_name.endswith("/predict") and len(inputs) == len(definition.inputs):
            found[each] = samples.random_trial(inputs)
    if not found:
        raise CannotAdopt(
            f"no signature of {source} takes any number of rows by Predict "
            f"({', '.join(map(_described, signatures.items()))}): write it again with "
            f"model.export(DIRECTORY), or with signatures of tf.TensorSpec([None, …])"
        )
    return found


def copy(source: Path, staging: Path, asked: Trials) -> None:
    """Copy it, and ask the copy as a model server does. Raises CannotAdopt where it does not
    load, or does not answer."""
    with reading(source):
        shutil.copytree(source, staging, dirs_exist_ok=True)
    with reading(source):
        try:
            _ask(staging, asked)
        except (tf.errors.OpError, ValueError) as error:
            if missing := _MISSING_OPERATION.search(str(error)):
                raise CannotAdopt(
                    f"{source} computes with the operation {missing[1]}, which TensorFlow alone "
                    f"does not have, and a model server would refuse it; export the model without "
                    f"it"
                ) from error
            raise


def _ask(directory: Path, asked: Trials) -> None:
    with saved_model.Session(directory) as session:
        for signature, trial in asked.items():
            session.run(signature, trial.inputs)


def _refuse_wishes(wishes: Wishes) -> None:
    asked = [
        option
        for option, value in (
            ("--labels", wishes.labels),
            ("--preprocess", wishes.preprocess),
            ("--input", wishes.inputs),
            ("--resize", wishes.resize),
            ("--explain-layer", wishes.explain_layer),
            ("--sample", wishes.samples),
            ("--optimize", wishes.bfloat16),
        )
        if value
    ]
    if asked:
        raise CannotAdopt(
            f"a SavedModel is published as it is, so {' and '.join(asked)} cannot be put into it; "
            f"publish the .keras file that it was made from"
        )


def _why_no_signature(source: Path) -> str:
    graphs = saved_model_pb2.SavedModel.FromString((source / SAVED_MODEL).read_bytes()).meta_graphs
    tags = ["+".join(sorted(graph.meta_info_def.tags)) or "no tag" for graph in graphs]
    if tags and SERVING_TAG not in tags:
        return (
            f"{source} has a graph for {', '.join(tags)} and none for "
            f"{SERVING_TAG!r} alone, which is what model servers load; write it again "
            f"with model.export(DIRECTORY)"
        )
    return (
        f"{source} has no signature that can be called by name: save it with "
        f"tf.saved_model.save(model, directory, signatures=…), or model.export(directory)"
    )


def _without_batch(info: Any) -> tuple[int | None, ...] | None:
    """A TensorInfo's shape after its first axis; None where it has no batch axis."""
    first, *rest = checks.sizes(info) or [0]
    return tuple(None if size < 0 else size for size in rest) if first == -1 else None


def _described(signature: tuple[str, Any]) -> str:
    name, definition = signature
    inputs = (f"{each} {checks.described(info)}" for each, info in definition.inputs.items())
    return f"{name}: {', '.join(inputs)}"

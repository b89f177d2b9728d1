"""A SavedModel directory -> a published version: copied whole, with the signatures that it has."""

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from sluice.wire.contract import SERVING_TAG
from sluice.wire.saved_model import read_signatures
from sluice.wire.versions import SAVED_MODEL
from training.adopting import samples
from training.adopting.adopt import Wishes
from training.adopting.guessing import Tensor
from training.adopting.reading import first_line, reading
from training.data.dataset import Arrays
from training.errors import CannotAdopt
from training.publishing import checks, saved_model
from training.publishing.trials import Trial, Trials

_LOADS = 3  # times as long as an answer: its weights are read from a disk
_RTOL, _ATOL = 1e-4, 1e-6  # what sums in another order may differ by
_MISSING_OPERATION = re.compile(r"Op type not registered '([^']+)'")


def signatures_of(source: Path, wishes: Wishes) -> dict[str, Any]:
    """What it answers, by name. Raises CannotAdopt where nobody can ask it, or `wishes` asks for
    what cannot be put into it."""
    _refuse_wishes(wishes)
    with reading(source):
        signatures = read_signatures(source)
        if not signatures:
            raise CannotAdopt(_why_no_signature(source))
    return signatures


def notes(signatures: Mapping[str, Any]) -> tuple[str, ...]:
    """What each signature is, in a line."""
    return tuple(
        f"{each}: {', '.join(definition.inputs)} -> {', '.join(definition.outputs)}, as they are"
        for each, definition in signatures.items()
    )


def requests_of(
    source: Path, signatures: Mapping[str, Any], given: Sequence[Path]
) -> dict[str, list[Trial]]:
    """For each signature that can be asked, requests of which a whole model answers one: `given`,
    the user's rows, or random ones. Raises CannotAdopt where none can be asked, DataError for rows
    that fit none."""
    faults = {name: _fault(each) for name, each in signatures.items()}
    inputs = {name: _inputs(each) for name, each in signatures.items() if not faults[name]}
    if not inputs:
        described = (f"{_described(each)} ({faults[each[0]]})" for each in signatures.items())
        raise CannotAdopt(
            f"no signature of {source} takes any number of rows by Predict: "
            f"{'; '.join(described)}. Write it again with model.export(DIRECTORY), or with "
            f"signatures of dense tf.TensorSpec([None, …])"
        )
    rows = samples.read_rows(given, inputs) if given else {}
    return {
        name: [rows[name]] if name in rows else [*samples.random_trials(each)]
        for name, each in inputs.items()
    }


def copy(source: Path, staging: Path) -> None:
    """Copy all of it. Raises CannotAdopt where it cannot be read, PublishError where no other
    program than the one that wrote it could answer."""
    with reading(source):
        _check_files(source)
        try:
            shutil.copytree(source, staging, dirs_exist_ok=True)
        except shutil.Error as error:  # all that went wrong, of which one thing says what to do
            _, _, why = error.args[0][0]
            raise CannotAdopt(f"{source} cannot be copied: {why}") from error
        checks.check_alone(staging)


def _check_files(source: Path) -> None:
    """Raises CannotAdopt for what may have no end: a device, a link back to where it lies."""
    for path in sorted(source.rglob("*")):
        if path.is_symlink() and path.is_dir():
            raise CannotAdopt(
                f"{path} is a link to a directory: put what is in that in the link's place"
            )
        if not (path.is_dir() or path.is_file()):
            raise CannotAdopt(
                f"{path} is no file but a device, a pipe or a link that leads nowhere: take it "
                f"away, or put the file in its place"
            )


def ask(
    source: Path,
    staging: Path,
    requests: Mapping[str, Sequence[Trial]],
    begin: Callable[[str], None] = lambda _step: None,
    wait_s: int = 480,
) -> tuple[Trials, list[str]]:
    """Load the copy as a model server does, and ask it: the requests that were answered, and in a
    line each the signatures that would take none, or that answer otherwise each time.

    begin: called before each step that may take long, with what is done.
    wait_s: until an answer has to be there, by the clock, and three times as long until it is
        loaded: what waits for a queue that nobody fills is stopped so, and not all that computes
        (asking.py stops that).
    Raises CannotAdopt where it does not load, or answers nothing.
    """
    patience = tf.compat.v1.RunOptions(timeout_in_ms=1000 * wait_s)
    answered: Trials = {}
    refused: dict[str, str] = {}
    unsteady: list[str] = []
    with (
        reading(source),
        _known_faults(source),
        # One thread: what it may compute (asking.py) is the same time on any number of cores.
        saved_model.Session(staging, threads=1, timeout_s=_LOADS * wait_s) as session,
    ):
        for name, trials in requests.items():

            def answer(trial: Trial, name: str = name) -> Arrays:
                begin(f"to answer {name}")
                return session.run(name, trial.inputs, options=patience)

            found = _first_answered(answer, trials)
            if isinstance(found, Trial):
                answered[name] = found
                unsteady += [name] if _changes(answer, found) else []
            else:
                refused[name] = first_line(found)
    if not answered:
        raise CannotAdopt(
            f"no signature of {source} answers "
            f"({'; '.join(f'{name}: {why}' for name, why in refused.items())}): if it is whole, "
            f"say --sample ROWS.npz, with an array for each input of rows that it takes"
        )
    return answered, [
        f"{name}: neither tried nor warmed up, as it refuses random values ({why}); --sample "
        f"ROWS.npz gives it others"
        for name, why in refused.items()
    ] + [
        f"{name}: answers the same rows otherwise each time, as it draws random numbers or counts; "
        f"where that is not meant, export the model for inference (training=False)"
        for name in unsteady
    ]


def _first_answered(
    answer: Callable[[Trial], Arrays], trials: Sequence[Trial]
) -> Trial | tf.errors.OpError:
    for trial in trials:
        try:
            answer(trial)
            return trial
        except tf.errors.NotFoundError:  # an operation or a file, whatever is asked
            raise
        except tf.errors.OpError as error:
            refusal = error
    return refusal


def _changes(answer: Callable[[Trial], Arrays], trial: Trial) -> bool:
    try:
        first, second = answer(trial), answer(trial)
    except tf.errors.DeadlineExceededError:  # it waits for what came once
        return True
    return any(
        array.shape != second[name].shape
        or not (
            np.allclose(array, second[name], rtol=_RTOL, atol=_ATOL, equal_nan=True)
            if array.dtype.kind in "fc"
            else np.array_equal(array, second[name])
        )
        for name, array in first.items()
    )


@contextlib.contextmanager
def _known_faults(source: Path) -> Iterator[None]:
    try:
        yield
    except tf.errors.DeadlineExceededError as error:
        raise CannotAdopt(
            f"{source} waits when it is loaded, for what does not come, as a model server would: "
            f"export it for serving, without its input queues"
        ) from error
    except (tf.errors.OpError, ValueError) as error:
        if missing := _MISSING_OPERATION.search(str(error)):
            raise CannotAdopt(
                f"{source} computes with the operation {missing[1]}, which TensorFlow alone does "
                f"not have, and a model server would refuse it; export the model without it"
            ) from error
        raise


def _refuse_wishes(wishes: Wishes) -> None:
    asked = [
        option
        for option, value in (
            ("--labels", wishes.labels),
            ("--preprocess", wishes.preprocess),
            ("--input", wishes.inputs),
            ("--output", wishes.outputs),
            ("--resize", wishes.resize),
            ("--explain-layer", wishes.explain_layer),
            ("--optimize", wishes.optimize != "none"),
            ("--batch-encoded", wishes.batch_encoded),
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


def _fault(signature: Any) -> str:
    """Why a server's Predict cannot ask it for any number of rows; "" where it can."""
    if not signature.method_name.endswith("/predict"):
        return f"it answers {signature.method_name.rpartition('/')[2]} alone"
    for name, info in {**signature.outputs, **signature.inputs}.items():
        if info.WhichOneof("encoding") != "name":
            return f"{name} is sparse or ragged"
    for name, info in signature.inputs.items():
        if (checks.sizes(info) or [0])[0] != -1:
            return f"{name} has no free first axis"
    return ""


def _inputs(signature: Any) -> dict[str, Tensor]:
    """Of one without a fault, by name."""
    return {
        name: Tensor(
            name,
            tuple(None if size < 0 else size for size in (checks.sizes(info) or [])[1:]),
            tf.as_dtype(info.dtype).name,
        )
        for name, info in signature.inputs.items()
    }


def _described(signature: tuple[str, Any]) -> str:
    name, definition = signature
    inputs = (f"{each} {checks.described(info)}" for each, info in definition.inputs.items())
    return f"{name}: {', '.join(inputs)}"

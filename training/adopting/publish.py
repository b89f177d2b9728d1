"""load -> guess -> wrap -> try -> publish: a model of the user's own as the next version."""

import datetime
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from training.adopting import describing, loading, samples
from training.adopting.adopt import Ask, Wishes, adopt
from training.adopting.guessing import Tensor
from training.data.dataset import Arrays
from training.errors import CannotAdopt
from training.publishing import checks, saved_model, warmup
from training.publishing.trials import Trials, trials
from training.publishing.version_directory import publish_directory


def publish(
    source: Path | keras.Model,
    wishes: Wishes,
    repository: Path,
    name: str,
    *,
    custom_objects: str | None = None,
    allow_code: bool = False,
    allow_breaking: bool = False,
    ask: Ask,
    say: Callable[[str], None],
) -> Path:
    """`repository/name/<N>` of a `.keras` or HDF5 file, a SavedModel directory or a Keras model.

    custom_objects: the module, by name or file, that defines what the model was built with.
    ask: called where the model does not tell and `wishes` does not either.
    say: called with each line about what the model was taken for.
    Raises TrainingError: CannotAdopt for what is no model, PublishError as for a trained one.
    """
    custom = loading.import_module(custom_objects) if custom_objects else None
    origin = _origin(source)
    if isinstance(source, Path) and loading.is_saved_model(source):
        _refuse_wishes(wishes)
        return _publish_saved_model(source, origin, repository, name, allow_breaking, say)

    model = loading.load(source, custom, allow_code=allow_code)
    adopted = adopt(model, wishes, ask)
    for line in adopted.notes:
        say(line)
    rows = (
        samples.read_samples(wishes.samples, adopted.inputs, adopted.images)
        if wishes.samples
        else samples.random_samples(adopted.inputs, adopted.images)
    )

    def write(staging: Path) -> None:
        saved_model.write(adopted.model, adopted.heads, staging, adopted.images)
        signatures = saved_model.signature_defs(staging)
        asked = trials(adopted.model, rows, adopted.heads, signatures, adopted.images)
        checks.check_parity(staging, asked)
        _finish(staging, asked, repository / name, allow_breaking)
        facts = {
            "source": origin | {"what": f"A Keras {type(model).__name__} model"},
            "labels": describing.labels_of(adopted.heads),
            "notes": adopted.notes,
            "tried": _tried(rows, wishes.samples),
        }
        describing.write(staging, name, facts, signatures, adopted.model)
        if wishes.samples:
            describing.write_samples(staging / "samples", rows, adopted.images)

    return publish_directory(repository / name, write)


def _publish_saved_model(
    source: Path,
    origin: dict[str, str],
    repository: Path,
    name: str,
    allow_breaking: bool,
    say: Callable[[str], None],
) -> Path:
    """A SavedModel is copied whole: its signatures are its own, and warmed up by random numbers."""
    signatures = saved_model.signature_defs(source)
    asked = _random_trials(signatures)
    if not asked:
        raise CannotAdopt(
            f"{source} has no signature that can be called by name: save it with "
            f"tf.saved_model.save(model, directory, signatures=…), or model.export(directory)"
        )
    notes = [
        f"{each}: {', '.join(definition.inputs)} -> {', '.join(definition.outputs)}, as they are"
        for each, definition in signatures.items()
    ]
    for line in notes:
        say(line)

    def write(staging: Path) -> None:
        shutil.copytree(source, staging, dirs_exist_ok=True)
        with saved_model.Session(staging) as session:
            for signature, trial in asked.items():
                session.run(signature, trial.inputs)
        _finish(staging, asked, repository / name, allow_breaking)
        facts = {
            "source": origin | {"what": "A SavedModel"},
            "labels": {},
            "notes": notes,
            "tried": "Loaded as a model server does, and asked with random numbers once.",
        }
        describing.write(staging, name, facts, signatures, model=None)

    return publish_directory(repository / name, write)


def _random_trials(signatures: Mapping[str, Any]) -> Trials:
    found: Trials = {}
    for each, definition in signatures.items():
        inputs = {
            name: Tensor(name, shape, tf.as_dtype(info.dtype).name)
            for name, info in definition.inputs.items()
            if (shape := _without_batch(info)) is not None
        }
        if definition.method_name.endswith("/predict") and len(inputs) == len(definition.inputs):
            found[each] = samples.random_trial(inputs)
    return found


def _without_batch(info: Any) -> tuple[int | None, ...] | None:
    """A TensorInfo's shape after its first axis; None where it has no batch axis."""
    first, *rest = checks.sizes(info) or [0]
    return tuple(None if size < 0 else size for size in rest) if first == -1 else None


def _refuse_wishes(wishes: Wishes) -> None:
    asked = [
        option
        for option, value in (
            ("--labels", wishes.labels),
            ("--preprocess", wishes.preprocess),
            ("--input", wishes.inputs),
            ("--resize", wishes.resize),
        )
        if value
    ]
    if asked:
        raise CannotAdopt(
            f"a SavedModel is published as it is, so {' and '.join(asked)} cannot be put into it; "
            f"publish the .keras file that it was made from"
        )


def _finish(staging: Path, asked: Trials, model_directory: Path, allow_breaking: bool) -> None:
    """What every adopted version gets: old clients are looked after, and it is warmed up."""
    live = saved_model.live_version(model_directory)
    if live and not allow_breaking:
        checks.check_compatible(staging, previous=live)
    warmup.write(asked, model_directory.name, staging)


def _origin(source: object) -> dict[str, str]:
    published = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    if not isinstance(source, Path):
        return {"from": "an object in memory", "published": published}
    if not source.exists():
        raise CannotAdopt(f"there is no {source}")
    sha256 = (
        describing.fingerprint(source) if source.is_file() or loading.is_saved_model(source) else ""
    )
    return {"from": source.name, "sha256": sha256, "published": published}


def _tried(rows: Arrays, given: Sequence[Path]) -> str:
    count = len(next(iter(rows.values())))
    what = f"{count} samples" if given else f"{count} rows of random values, as no sample was given"
    return f"Every signature of the written SavedModel answered as Keras does, on {what}."

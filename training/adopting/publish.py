"""load -> guess -> wrap -> try -> publish: a model of the user's own as the next version."""

import contextlib
import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from sluice.wire.signing import SigningKey
from training.adopting import describing, loading, measuring, samples, saved_models
from training.adopting.adopt import Adopted, Wishes, adopt
from training.adopting.asking import Asker
from training.adopting.outputs import Ask
from training.adopting.reading import first_line, reading
from training.adopting.recognising import is_saved_model
from training.data.dataset import Arrays
from training.errors import CannotAdopt
from training.novelty.fitting import LEAST, LEFT_OUT, Novelty, facts_of, fit_samples
from training.publishing import checks, held_out, saved_model, warmup
from training.publishing.comparison import Comparison
from training.publishing.export import Export
from training.publishing.half_precision import HalfPrecision, tags_asked
from training.publishing.held_out import HeldOut
from training.publishing.trials import Trials
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
    novelty: bool = True,
    allow_worse: bool = False,
    key: SigningKey | None = None,
    ask: Ask,
    say: Callable[[str], None],
) -> Path:
    """`repository/name/<N>` of a `.keras` or HDF5 file, a SavedModel directory or a Keras model.

    custom_objects: the module, by name or file, that defines what the model was built with.
    key: signs the version.
    ask: called where the model does not tell and `wishes` does not either.
    say: called with each line about what the model was taken for.
    Raises TrainingError: CannotAdopt for what is no model, PublishError as for a trained one.
    """
    custom = loading.import_module(custom_objects) if custom_objects else None
    if isinstance(source, Path) and is_saved_model(source):
        return _publish_saved_model(source, wishes, repository / name, allow_breaking, key, say)

    model = loading.load(source, custom, allow_code=allow_code)
    origin = _origin(source)
    adopted = adopt(model, wishes, ask)
    for line in adopted.notes:
        say(line)
    made = origin | {"what": f"A Keras {type(model).__name__} model"}
    with _trying(wishes.samples):
        return _publish_adopted(
            adopted,
            made,
            wishes,
            repository / name,
            allow_breaking=allow_breaking,
            novelty=novelty,
            allow_worse=allow_worse,
            key=key,
            say=say,
        )


def _publish_adopted(
    adopted: Adopted,
    origin: Mapping[str, str],
    wishes: Wishes,
    directory: Path,
    *,
    allow_breaking: bool,
    novelty: bool,
    allow_worse: bool,
    key: SigningKey | None,
    say: Callable[[str], None],
) -> Path:
    """directory: the model's, in the repository."""
    dataset = measuring.labelled(wishes.samples, adopted.inputs, adopted.images, adopted.heads)
    if live := saved_model.live_version(directory):
        compared = measuring.compare(adopted.model, adopted.heads, dataset, live)
        say(str(compared))
        if isinstance(compared, Comparison) and not allow_worse:
            compared.check(measuring.MARGIN, "--allow-worse publishes it all the same")
    rows, found = _samples(adopted, wishes, novelty=novelty)

    def write(staging: Path) -> None:
        exported = Export(
            adopted.model,
            adopted.heads,
            rows,
            adopted.images,
            wishes.explain_layer,
            found if isinstance(found, Novelty) else None,
            _half(wishes, held_out.of(dataset) if dataset else HeldOut(rows, {}, {})),
            wishes.batch_encoded,
        ).write(staging, say)
        checks.check_alone(staging)
        _finish(staging, exported.asked, directory, allow_breaking, exported.more_rows)
        facts = {
            "source": origin,
            "labels": describing.labels_of(adopted.heads),
            "kinds": adopted.kinds,
            "notes": adopted.notes,
            "tried": _tried(rows, wishes.samples),
            "explained": exported.explained,
            "novelty": facts_of(found),
            "graphs": exported.graphs,
        }
        if dataset:
            facts |= measuring.write(staging, dataset, adopted.model)
        describing.write(staging, directory.name, facts, exported.signatures, adopted.model)
        if wishes.samples and not dataset:
            describing.write_samples(staging / "samples", rows, adopted.images)

    return publish_directory(directory, write, key=key)


@contextlib.contextmanager
def _trying(given: Sequence[Path]) -> Iterator[None]:
    """Within, the model is run on rows: those that it refuses become a sentence."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        rows = "a sample" if given else "the random rows that it is tried on"
        raise CannotAdopt(
            f"the model refuses {rows} ({first_line(error)}); say --sample with rows that it takes"
        ) from error


def _half(wishes: Wishes, samples: HeldOut) -> HalfPrecision | None:
    tags = tags_asked(wishes.optimize)
    if not tags:
        return None
    return HalfPrecision(tags, samples, wishes.limits, wishes.optimize_constants)


def _samples(adopted: Adopted, wishes: Wishes, *, novelty: bool) -> tuple[Arrays, Novelty | str]:
    """Rows to try the model on, and what all samples together teach of its pictures."""
    if not wishes.samples:
        rows = samples.random_samples(adopted.inputs, adopted.images)
        return rows, f"no samples were given, of which {2 * LEAST} are needed"
    most = samples.most_of(adopted.images) if novelty else samples.TRIED
    every = samples.read_samples(wishes.samples, adopted.inputs, adopted.images, most)
    rows = {name: array[: samples.TRIED] for name, array in every.items()}
    if not novelty:
        return rows, LEFT_OUT
    if not adopted.images:
        return rows, "the model takes no picture"
    return rows, fit_samples(adopted.model, adopted.heads, every)


def _publish_saved_model(
    source: Path,
    wishes: Wishes,
    model_directory: Path,
    allow_breaking: bool,
    key: SigningKey | None,
    say: Callable[[str], None],
) -> Path:
    signatures = saved_models.signatures_of(source, wishes)
    requests = saved_models.requests_of(source, signatures, wishes.samples)
    origin = _origin(source)
    notes = [*saved_models.notes(signatures)]
    for line in notes:
        say(line)

    def write(staging: Path) -> None:
        saved_models.copy(source, staging)
        answered, refused = asker.ask(source, staging, requests)
        for line in refused:
            say(line)
        _finish(staging, answered, model_directory, allow_breaking)
        what = "your samples" if wishes.samples else "random values"
        facts = {
            "source": origin | {"what": "A SavedModel"},
            "labels": {},
            "notes": [*notes, *refused],
            "tried": f"Loaded as a model server does, and asked once with {what}: "
            f"{', '.join(answered)} answered.",
            "explained": {},
            "novelty": facts_of("a SavedModel is published as it is"),
        }
        describing.write(staging, model_directory.name, facts, signatures, model=None)

    with Asker() as asker:
        return publish_directory(model_directory, write, key=key)


def _finish(
    staging: Path,
    asked: Trials,
    model_directory: Path,
    allow_breaking: bool,
    more_rows: Sequence[int] = (),
) -> None:
    """What every adopted version gets: old clients are looked after, and it is warmed up."""
    live = saved_model.live_version(model_directory)
    if live and not allow_breaking:
        checks.check_compatible(staging, previous=live)
    warmup.write(asked, model_directory.name, staging, more_rows)


def _origin(source: object) -> dict[str, str]:
    published = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    if not isinstance(source, Path):
        return {"from": "an object in memory", "published": published}
    with reading(source):
        sha256 = describing.fingerprint(source)
    return {"from": source.name, "sha256": sha256, "published": published}


def _tried(rows: Arrays, given: Sequence[Path]) -> str:
    count = len(next(iter(rows.values())))
    what = f"{count} samples" if given else f"{count} rows of random values, as no sample was given"
    return f"Every signature of the written SavedModel answered as Keras does, on {what}."

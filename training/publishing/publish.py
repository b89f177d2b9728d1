"""Trained model -> the next version in the model repository."""

from pathlib import Path

import keras

from sluice.wire.versions import published_versions
from training.data.dataset import Dataset
from training.publishing import checks, report, samples, saved_model, warmup
from training.publishing.report import TrainingRun
from training.publishing.trials import trials
from training.publishing.version_directory import publish_directory

_TRIED = 64  # held-out examples that the written SavedModel must answer as Keras does


def publish(
    model: keras.Model,
    dataset: Dataset,
    run: TrainingRun,
    repository: Path,
    name: str,
    *,
    allow_breaking: bool = False,
) -> Path:
    """Write the version, try it, and let it appear; give `repository/name/<N>`.

    Raises WrongAnswers, and BreakingChange unless `allow_breaking`; nothing is left behind then.
    """
    model_directory = repository / name
    held_out = dataset.test.take(slice(_TRIED)).inputs

    def write(staging: Path) -> None:
        saved_model.write(model, dataset.heads, staging)
        signatures = saved_model.signature_defs(staging)
        asked = trials(model, held_out, dataset.heads, signatures)
        checks.check_parity(staging, asked)
        published = [*published_versions(model_directory).values()]
        if published and not allow_breaking:
            checks.check_compatible(staging, previous=published[-1])
        warmup.write(asked, name, staging)
        report.write(staging, model, dataset, run, signatures)
        samples.write(staging / "samples", dataset)

    return publish_directory(model_directory, write)

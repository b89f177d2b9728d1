"""Trained model -> the next version in the model repository."""

from pathlib import Path

import keras

from training.data.dataset import Dataset
from training.publishing import checks, report, samples, saved_model, warmup
from training.publishing.report import Run
from training.publishing.trials import trials
from training.publishing.version_directory import publish_directory, versions

CHECKED = 64  # held-out examples that the written SavedModel is tried on


def publish(
    model: keras.Model,
    dataset: Dataset,
    run: Run,
    repository: Path,
    name: str,
    *,
    allow_breaking: bool = False,
) -> Path:
    """Writes, checks and publishes; gives `repository/name/<N>`.

    Raises ParityError, or BreakingChange unless `allow_breaking`.
    """
    model_directory = repository / name
    trial = dataset.test.take(slice(CHECKED))

    def write(staging: Path) -> None:
        saved_model.write(model, dataset.heads, staging)
        signatures = saved_model.signature_defs(staging)
        asked = trials(model, trial.inputs, dataset.heads, signatures)
        checks.check_parity(staging, asked)
        published = versions(model_directory)
        if published and not allow_breaking:
            checks.check_compatible(staging, model_directory / str(published[-1]))
        warmup.write(asked, name, staging)
        report.write(staging, model, dataset, run, signatures)
        samples.write(staging / "samples", dataset)

    return publish_directory(model_directory, write)

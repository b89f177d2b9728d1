"""Trained model -> the next version in the model repository."""

from pathlib import Path

import keras

from training.data.dataset import Dataset
from training.explaining.explainer import looked_at
from training.novelty.fitting import LEFT_OUT, Novelty, facts_of, fit_trained
from training.publishing import (
    checks,
    comparison,
    held_out,
    report,
    samples,
    saved_model,
    warmup,
)
from training.publishing.report import TrainingRun
from training.publishing.trials import trials
from training.publishing.version_directory import publish_directory

_TRIED = 64  # held-out examples that the written SavedModel must answer as Keras does
_GRAPHS_AND_PICTURES = 1_000_000  # bytes, about, of what is beside weights and samples


def publish(
    model: keras.Model,
    dataset: Dataset,
    run: TrainingRun,
    repository: Path,
    name: str,
    *,
    allow_breaking: bool = False,
    allow_worse: bool = False,
) -> Path:
    """Write the version, try it, and let it appear; give `repository/name/<N>`.

    Raises WrongAnswers, BreakingChange unless `allow_breaking`, Worse unless `allow_worse`,
    DiskFull; nothing is left behind then.
    """
    model_directory = repository / name
    live = saved_model.live_version(model_directory)
    if live:
        _compare(model, dataset, live, None if allow_worse else run.recipe.margin)
    tried = dataset.test.take(slice(_TRIED)).inputs
    kept = held_out.of(dataset)
    novelty = fit_trained(model, dataset) if run.recipe.novelty else LEFT_OUT
    told = novelty if isinstance(novelty, Novelty) else None

    def write(staging: Path) -> None:
        graphs = saved_model.write(
            model,
            dataset.heads,
            staging,
            explain_layer=run.recipe.explain_layer,
            spread=told.spread if told else None,
        )
        signatures = saved_model.signature_defs(staging)
        asked = trials(
            model, tried, dataset.heads, signatures, explainer=graphs.explainer, novelty=told
        )
        checks.check_parity(staging, asked)
        if live and not allow_breaking:
            checks.check_compatible(staging, previous=live)
        warmup.write(asked, name, staging)
        extra = {"explained": looked_at(graphs.explainer), "novelty": facts_of(novelty)}
        report.write(staging, model, dataset, run, signatures, extra, name)
        samples.write(staging / "samples", dataset)
        held_out.write(staging, kept)

    needed = sum(variable.value.numpy().nbytes for variable in model.variables)
    needed += sum(array.nbytes for array in told.spread.arrays().values()) if told else 0
    needed += held_out.stored_bytes(kept) + _GRAPHS_AND_PICTURES
    return publish_directory(model_directory, write, needed)


def _compare(model: keras.Model, dataset: Dataset, live: Path, margin: float | None) -> None:
    """Say which is better, and raise Worse where it is the live one by more than `margin`."""
    compared = comparison.compare(model, dataset, live)
    print(compared, flush=True)
    if isinstance(compared, comparison.Comparison) and margin is not None:
        compared.check(
            margin,
            "The same command with --resume --allow-worse publishes it all the same; `margin` is a "
            "setting",
        )

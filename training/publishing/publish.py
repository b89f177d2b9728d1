"""Trained model -> the next version in the model repository."""

from pathlib import Path

import keras

from sluice.wire.signing import SigningKey
from training.data.dataset import Dataset
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
from training.publishing.agreement import Limits
from training.publishing.export import Export
from training.publishing.half_precision import HalfPrecision, tags_asked
from training.publishing.held_out import HeldOut
from training.publishing.report import TrainingRun
from training.publishing.version_directory import publish_directory
from training.recipes import Recipe

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
    key: SigningKey | None = None,
) -> Path:
    """Write the version, try it, and let it appear, signed by `key`; give `repository/name/<N>`.

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

    def write(staging: Path) -> None:
        export = Export(
            model,
            dataset.heads,
            tried,
            explain_layer=run.recipe.explain_layer,
            novelty=novelty if isinstance(novelty, Novelty) else None,
            half=_half(run.recipe, kept),
            batch_encoded=run.recipe.batch_encoded,
        )
        exported = export.write(staging, say=lambda line: print(line, flush=True))
        if live and not allow_breaking:
            checks.check_compatible(staging, previous=live)
        warmup.write(exported.asked, name, staging, exported.more_rows)
        extra = {
            "explained": exported.explained,
            "novelty": facts_of(novelty),
            "graphs": exported.graphs,
        }
        report.write(staging, model, dataset, run, exported.signatures, extra, name)
        samples.write(staging / "samples", dataset)
        held_out.write(staging, kept)

    needed = sum(variable.value.numpy().nbytes for variable in model.variables)
    if isinstance(novelty, Novelty):
        needed += sum(array.nbytes for array in novelty.spread.arrays().values())
    if tags := tags_asked(run.recipe.optimize):
        copies = len(tags) + 1 + bool(run.recipe.optimize_constants)
        needed += needed * copies // 2  # while the last one is joined it is there twice
    needed += held_out.stored_bytes(kept) + _GRAPHS_AND_PICTURES
    return publish_directory(model_directory, write, needed, key)


def _half(recipe: Recipe, samples: HeldOut) -> HalfPrecision | None:
    tags = tags_asked(recipe.optimize)
    limits = Limits(recipe.optimize_drop, recipe.optimize_margin)
    return HalfPrecision(tags, samples, limits, recipe.optimize_constants) if tags else None


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

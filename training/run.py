"""load -> build -> fit -> evaluate -> publish."""

from pathlib import Path

from training.build import build
from training.data.load import load
from training.fitting import devices, precision
from training.fitting.fit import fit
from training.publishing.evaluate import evaluate
from training.publishing.publish import publish
from training.publishing.report import TrainingRun
from training.recipes import Recipe
from training.workspace import finish, open_workspace


def run(
    recipe: Recipe,
    *,
    model_repository: Path,
    data: Path | None,
    name: str,
    resume: bool,
    allow_breaking: bool,
) -> Path | None:
    """One run from files to a version; `training.train` says what is asked and given."""
    strategy = devices.strategy_for(recipe)
    keep = resume or not devices.is_chief(strategy)
    workspace = open_workspace(model_repository / name, keep=keep)
    dataset = load(recipe, data, workspace)
    with strategy.scope():
        model = build(recipe, dataset, precision.policy(recipe.precision))
    progress = fit(model, dataset, recipe, strategy, workspace, resume=resume)
    version = None
    if devices.is_chief(strategy):
        evaluation = evaluate(model, dataset)
        version = publish(
            model,
            dataset,
            TrainingRun(recipe, progress, evaluation),
            model_repository,
            name,
            allow_breaking=allow_breaking,
        )
        finish(workspace)
    devices.meet(strategy)
    return version

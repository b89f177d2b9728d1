"""load -> build -> fit -> evaluate -> publish."""
from __future__ import annotations

from pathlib import Path

from training import devices
from training.build import build
from training.evaluate import evaluate
from training.fit import fit
from training.load import load
from training.publish import publish
from training.recipes import Recipe
from training.report import Run
from training.workspace import finish, prepare


def run(recipe: Recipe, *, model_repository: Path, data: Path | None, name: str, resume: bool,
        allow_breaking: bool) -> Path | None:
    strategy = devices.prepare(recipe)
    workspace = prepare(model_repository / name, keep=resume or not devices.is_chief(strategy))
    dataset = load(recipe, data, workspace)
    model = build(recipe, dataset)
    progress = fit(model, dataset, recipe, strategy, workspace, resume=resume)
    version = None
    if devices.is_chief(strategy):
        evaluation = evaluate(model, dataset)
        version = publish(model, dataset, Run(recipe, progress, evaluation), model_repository,
                          name, allow_breaking=allow_breaking)
        finish(workspace)
    devices.meet(strategy)
    return version

"""load -> build -> fit -> evaluate -> publish."""
from __future__ import annotations

from pathlib import Path

from training.build import build
from training.evaluate import evaluate
from training.fit import fit
from training.load import load
from training.publish import publish
from training.recipes import Recipe
from training.report import Run


def run(recipe: Recipe, *, model_repository: Path, data: Path | None, name: str,
        allow_breaking: bool) -> Path:
    dataset = load(recipe, data)
    model = build(recipe, dataset)
    history = fit(model, dataset, recipe)
    evaluation = evaluate(model, dataset)
    return publish(model, dataset, Run(recipe, history, evaluation), model_repository, name,
                   allow_breaking=allow_breaking)

"""load -> build -> fit -> evaluate -> publish."""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import keras

from sluice.wire.signing import SigningKey
from training.build import build, check_model
from training.data.dataset import Dataset
from training.data.load import load
from training.fitting import devices, precision
from training.fitting.checkpoint import Progress
from training.fitting.fit import fit
from training.publishing import checks, saved_model, summary
from training.publishing.evaluate import evaluate
from training.publishing.publish import publish
from training.publishing.report import TrainingRun, command
from training.publishing.signatures import SignatureGraphs
from training.recipes import Recipe
from training.surroundings.disk import room_for
from training.workspace import clear, finish, occupied, open_workspace, resumable


@dataclass(frozen=True)
class Plan:
    """What `training.train` was asked, checked.

    >>> from training.recipes import RECIPES
    >>> Plan(RECIPES["digits"], Path("model_repository"), "digits").resume
    False
    """

    recipe: Recipe
    model_repository: Path
    name: str
    data: Path | None = None
    resume: bool = False
    allow_breaking: bool = False
    allow_worse: bool = False
    key: SigningKey | None = None


def run(plan: Plan) -> Path | None:
    """One run from files to a version; `training.train` says what is asked and given."""
    check_model(plan.recipe)
    strategy = devices.strategy_for(plan.recipe)
    chief = devices.is_chief(strategy)
    workspace = open_workspace(plan.model_repository / plan.name)
    with occupied(workspace) if chief else nullcontext(), resumable(workspace):
        if chief and not plan.resume:
            clear(workspace)
        with room_for("what is remembered of the images", workspace):
            dataset = load(plan.recipe, plan.data, workspace)
        with strategy.scope():
            model = build(plan.recipe, dataset, precision.policy(plan.recipe.precision))
        _look_ahead(plan, model, dataset)
        progress = fit(model, dataset, plan.recipe, strategy, workspace, resume=plan.resume)
        version = _publish(plan, model, dataset, progress) if chief else None
        if chief:
            finish(workspace)
    devices.meet(strategy)
    return version


def _look_ahead(plan: Plan, model: keras.Model, dataset: Dataset) -> None:
    """What would stop the publication whatever is learnt stops the run before it begins."""
    live = saved_model.live_version(plan.model_repository / plan.name)
    if plan.allow_breaking:
        live = None
    if live or plan.recipe.explain_layer:
        graphs = SignatureGraphs(model, dataset.heads, explain_layer=plan.recipe.explain_layer)
    if live:
        checks.check_planned(graphs, live)


def _publish(plan: Plan, model: keras.Model, dataset: Dataset, progress: Progress) -> Path:
    print(f"Looking at {len(dataset.test):,} held-out images", flush=True)
    evaluation = evaluate(model, dataset)
    print("Writing the version, and trying it", flush=True)
    version = publish(
        model,
        dataset,
        TrainingRun(plan.recipe, progress, evaluation, command(plan.recipe, plan.name, plan.data)),
        plan.model_repository,
        plan.name,
        allow_breaking=plan.allow_breaking,
        allow_worse=plan.allow_worse,
        key=plan.key,
    )
    for line in summary.lines(version, dataset, evaluation):
        print(line, flush=True)
    return version

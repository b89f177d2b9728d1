"""Model and data -> trained model and its curves."""

import math
import time
from contextlib import nullcontext
from pathlib import Path

import keras
import tensorflow as tf

from training.data.dataset import Dataset
from training.errors import BadSetting, DataError, Diverged
from training.fitting import checkpoint
from training.fitting.batches import ordered_rows, shuffled_rows
from training.fitting.checkpoint import Progress
from training.fitting.devices import is_chief
from training.fitting.precision import to_float32
from training.fitting.tensorboard import CurvesLog
from training.fitting.trainer import Means, Trainer
from training.recipes import Recipe
from training.surroundings.disk import room_for
from training.workspace import CHECKPOINT, TENSORBOARD


def fit(
    model: keras.Model,
    dataset: Dataset,
    recipe: Recipe,
    strategy: tf.distribute.Strategy,
    workspace: Path,
    *,
    resume: bool = False,
) -> Progress:
    """Train `model`, which was built in the strategy's scope, and leave it in float32.

    workspace: where the checkpoint and TensorBoard's logs are.

    Raises BadSetting and DataError where there is no batch for the devices, CannotResume, Diverged.
    """
    batch_size = _batch_size_for(recipe, dataset, strategy)
    steps = len(dataset.train) // batch_size
    trainer = Trainer(model, recipe, dataset.heads, strategy, batch_size, steps)
    path, chief = workspace / CHECKPOINT, is_chief(strategy)
    progress = checkpoint.restore(path, recipe, trainer.variables) if resume else Progress()
    log_or_none = CurvesLog(workspace / TENSORBOARD) if chief else nullcontext()
    with room_for("the curves", workspace), log_or_none as log:
        while not _finished(progress, recipe):
            means = _add_epoch(progress, trainer, dataset, recipe, verbose=chief)
            if recipe.patience and progress.best_epoch == progress.epochs - 1:
                progress.best = model.get_weights()
            if log:
                checkpoint.save(path, recipe, progress, trainer.variables)
                log.write(means, progress.epochs)
    if progress.best:
        model.set_weights(progress.best)
    to_float32(model)
    return progress


def _batch_size_for(recipe: Recipe, dataset: Dataset, strategy: tf.distribute.Strategy) -> int:
    """The recipe's, or all the images where there are fewer; a multiple of the replicas."""
    replicas: int = strategy.num_replicas_in_sync
    if recipe.batch_size % replicas:
        raise BadSetting(
            f"batch_size {recipe.batch_size} cannot be dealt out evenly to "
            f"{replicas} devices: take a multiple of {replicas}"
        )
    batch_size = min(recipe.batch_size, len(dataset.train) // replicas * replicas)
    if not batch_size:
        raise DataError(
            f"{len(dataset.train)} training images are too few for {replicas} devices: expected "
            f"one for each at least"
        )
    return batch_size


def _finished(progress: Progress, recipe: Recipe) -> bool:
    """After all its epochs, or `patience` of them without a lower validation loss."""
    if progress.epochs == recipe.epochs:
        return True
    return bool(
        recipe.patience
        and progress.epochs
        and progress.epochs - 1 - progress.best_epoch >= recipe.patience
    )


def _add_epoch(
    progress: Progress, trainer: Trainer, dataset: Dataset, recipe: Recipe, *, verbose: bool
) -> Means:
    """The next one, recorded. Raises Diverged."""
    started = time.monotonic()
    means = _train_epoch(trainer, dataset, recipe, progress.epochs, verbose=verbose)
    if not math.isfinite(means["loss"]):
        raise Diverged(
            f"the loss of epoch {progress.epochs + 1} is {means['loss']}: try a "
            f"learning_rate below {recipe.learning_rate}"
        )
    progress.record(means)
    progress.seconds += time.monotonic() - started
    return means


def _train_epoch(
    trainer: Trainer, dataset: Dataset, recipe: Recipe, epoch: int, *, verbose: bool
) -> Means:
    """The means of one epoch, counted from 0; those of the validation split as `validation_…`."""
    rows = shuffled_rows(dataset.train, trainer.batch_size, recipe.seed, epoch)
    if verbose:
        print(f"Epoch {epoch + 1}/{recipe.epochs}", flush=True)
    bar = keras.utils.Progbar(len(rows), verbose=int(verbose))
    means = trainer.train(dataset.train, rows, bar)
    validation = trainer.evaluate(
        dataset.validation, ordered_rows(dataset.validation, trainer.batch_size)
    )
    means |= {f"validation_{name}": value for name, value in validation.items()}
    bar.update(len(rows), list(means.items()), finalize=True)
    return means

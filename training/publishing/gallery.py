"""The pictures published beside a model: which ones, by what its heads answer."""

from pathlib import Path

import keras
import numpy as np

from models.adversarial import GAN
from sluice.wire.tensors import Array
from training.data.dataset import Arrays, Dataset
from training.data.heads import Classes, Mask
from training.fitting.checkpoint import Curves
from training.publishing import pictures
from training.publishing.evaluate import Evaluation, confusion, worst

_MISTAKES = 24
_MASKS = 8
_DRAWN_PER_CLASS = 8


def draw(
    directory: Path, model: keras.Model, dataset: Dataset, curves: Curves, evaluation: Evaluation
) -> None:
    """training.png; `confusion-<head>.png` and `mistakes-<head>.png` of every head with classes,
    the first one's without its name; masks.png; samples.png of a GAN."""
    pictures.draw_curves(curves, directory / "training.png")
    draw_answers(directory, dataset, evaluation)
    if isinstance(model, GAN):
        pictures.draw_grid(_drawn(model, dataset.classes), [], directory / "samples.png")


def draw_answers(directory: Path, dataset: Dataset, evaluation: Evaluation) -> None:
    """What is drawn of any model: all but its curves, and what a GAN draws."""
    image = _side_by_side(dataset.test.inputs)
    for number, (name, head) in enumerate(dataset.heads.items()):
        suffix = f"-{name}" if number else ""
        target, output = dataset.test.targets[name], evaluation.outputs[name]
        if isinstance(head, Mask):
            pictures.draw_masks(
                image[:_MASKS], target[:_MASKS], output[:_MASKS].argmax(-1), directory / "masks.png"
            )
        elif isinstance(head, Classes):
            pictures.draw_confusion(
                confusion(target, output),
                head.labels,
                f"{name}, test images",
                directory / f"confusion{suffix}.png",
            )
            _draw_mistakes(image, target, output, head, directory / f"mistakes{suffix}.png")


def _draw_mistakes(image: Array, target: Array, output: Array, head: Classes, path: Path) -> None:
    rows = worst(target, output, _MISTAKES)
    if not len(rows):
        pictures.draw_text(f"No mistake in {len(target):,} test images", path)
        return
    captions = [
        f"{head.labels[target[row]]}, answered\n{head.labels[output[row].argmax()]} "
        f"{output[row].max():.2f}"
        for row in rows
    ]
    pictures.draw_grid(image[rows], captions, path)


def _side_by_side(inputs: Arrays) -> Array:
    """All images of an example as one: [N, H, W1 + W2 ..., C]."""
    return np.concatenate([*inputs.values()], axis=2)


def _drawn(model: GAN, classes: int) -> Array:
    """A row for each class: uint8 [classes * _DRAWN_PER_CLASS, H, W, C]."""
    labels = np.repeat(np.arange(classes), _DRAWN_PER_CLASS)
    return np.asarray(model.draw(labels)).clip(0, 255).astype(np.uint8)

"""Curves and confusion as PNG files, drawn without a display."""
from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from training.dataset import Array
from training.fit import Curves

NAMED_CLASSES = 30  # beyond, labels and numbers would run into each other


def draw_curves(curves: Curves, path: Path) -> None:
    """Loss on the left, every other measure on the right; validation dashed."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    loss, rest = figure.subplots(1, 2)
    for name in (name for name in curves if not name.startswith("validation_")):
        axes: Axes = loss if name == "loss" else rest
        epochs = np.arange(1, len(curves[name]) + 1)
        [line] = axes.plot(epochs, curves[name], marker=".", label=words(name))
        validation = f"validation_{name}"
        if validation in curves:
            axes.plot(epochs, curves[validation], "--", marker=".", color=line.get_color(),
                      label=words(validation))
    for axes, title in ((loss, "loss"), (rest, "accuracy")):
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    figure.savefig(path, dpi=100)


def draw_confusion(matrix: Array, labels: tuple[str, ...], title: str, path: Path) -> None:
    """matrix: [classes, classes], true class by row; shaded by the share of the row."""
    classes = len(labels)
    side = 3.5 + 0.45 * min(classes, NAMED_CLASSES)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set(title=title, xlabel="answered", ylabel="true")
    if classes <= NAMED_CLASSES:
        axes.set_xticks(range(classes), labels, rotation=45, ha="right")
        axes.set_yticks(range(classes), labels)
        for row, column in zip(*np.nonzero(matrix), strict=True):
            axes.text(column, row, str(matrix[row, column]), ha="center", va="center", fontsize=8,
                      color="white" if share[row, column] > 0.5 else "black")
    figure.savefig(path, dpi=100)


def words(name: str) -> str:
    return name.replace("_", " ")

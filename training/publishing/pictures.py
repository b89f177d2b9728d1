"""Curves, confusion and images as PNG files, drawn without a display."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sluice.wire.tensors import Array
from training.fitting.checkpoint import Curves

_NAMED_CLASSES = 30  # beyond, labels and numbers would run into each other
_COLUMNS = 8
# Okabe and Ito's, which the colour-blind tell apart; not their yellow, which paper swallows.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")

_Extent = tuple[float, float, float, float]


def draw_curves(curves: Curves, path: Path) -> None:
    """Loss on the left, every other measure on the right; validation dashed, each in its colour."""
    figure = Figure(figsize=(10, 4))
    figure.subplots_adjust(0.06, 0.13, 0.98, 0.91)
    loss, rest = figure.subplots(1, 2)
    for axes in (loss, rest):
        axes.set_prop_cycle(color=_COLOURS)
    for name in (name for name in curves if not name.startswith("validation_")):
        axes = loss if name == "loss" else rest
        epochs = np.arange(1, len(curves[name]) + 1)
        axes.plot(epochs, curves[name], "-", marker="o", markersize=3, label=_words(name))
        validation = f"validation_{name}"
        if validation in curves:
            values = curves[validation]
            axes.plot(epochs, values, "--", marker="s", markersize=3, label=_words(validation))
    for axes, title in ((loss, "loss"), (rest, "measures")):
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(handlelength=3)
    figure.savefig(path, dpi=100)


def draw_confusion(matrix: Array, labels: tuple[str, ...], title: str, path: Path) -> None:
    """matrix: [classes, classes], true class by row; shaded by the share of the row."""
    classes = len(labels)
    side = 3.5 + 0.45 * min(classes, _NAMED_CLASSES)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set(title=title, xlabel="answered", ylabel="true")
    if classes <= _NAMED_CLASSES:
        axes.set_xticks(range(classes), labels, rotation=45, ha="right")
        axes.set_yticks(range(classes), labels)
        for row, column in zip(*np.nonzero(matrix), strict=True):
            axes.text(
                column,
                row,
                str(matrix[row, column]),
                ha="center",
                va="center",
                fontsize=8,
                color="white" if share[row, column] > 0.5 else "black",
            )
    figure.savefig(path, dpi=100)


def draw_grid(images: Array, captions: Sequence[str], path: Path) -> None:
    """uint8 [N >= 1, H, W, C], _COLUMNS to a row, each under its caption if there are any."""
    height, width = images.shape[1:3]
    gap = max(height * 0.35, width * 0.35) if captions else height * 0.05
    columns = min(_COLUMNS, len(images))
    rows = -(-len(images) // columns)
    whole = (columns * width * 1.08, rows * (height + gap))
    figure = Figure(figsize=(1.5 * columns, 1.5 * columns * whole[1] / whole[0]))
    # One pair of axes for all: a pair for each image takes seconds.
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, whole[0]), ylim=(whole[1], 0))
    axes.axis("off")
    for number, image in enumerate(images):
        x = number % columns * width * 1.08
        y = number // columns * (height + gap) + gap
        _show(axes, image, extent=(x, x + width, y + height, y))
        if captions:
            axes.text(x + width / 2, y - gap * 0.1, captions[number], fontsize=7, ha="center")
    axes.set(xlim=(0, whole[0]), ylim=(whole[1], 0), aspect="equal")
    figure.savefig(path, dpi=100)


def draw_text(text: str, path: Path) -> None:
    """In place of a picture that has nothing to show."""
    figure = Figure(figsize=(6, 1))
    figure.text(0.5, 0.5, text, ha="center", va="center")
    figure.savefig(path, dpi=100)


def draw_masks(images: Array, true: Array, answered: Array, path: Path) -> None:
    """Columns: the image [H, W, C], the true mask and the answered one [H, W]."""
    figure = Figure(figsize=(1.5 * len(images), 5))
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.95, 0.1, 0.15)
    grid = figure.subplots(3, len(images), squeeze=False)
    for column, rows in zip(grid.T, zip(images, true, answered, strict=True), strict=True):
        for axes, picture, title in zip(column, rows, ("image", "true", "answered"), strict=True):
            axes.axis("off")
            axes.set_title(title, fontsize=7)
            _show(axes, picture)
    figure.savefig(path, dpi=100)


def _show(axes: Axes, image: Array, extent: _Extent | None = None) -> None:
    """[H, W], or [H, W, C] of 0..255; extent: left, right, bottom, top."""
    if image.ndim == 3:
        axes.imshow(
            image[..., 0] if image.shape[-1] == 1 else image,
            cmap="gray",
            vmin=0,
            vmax=255,
            extent=extent,
        )
    else:
        axes.imshow(image, cmap="viridis")


def _words(name: str) -> str:
    return name.replace("_", " ")

"""What a model is worth on the user's labelled samples, which are kept for the version after it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from training.adopting.guessing import Tensor
from training.adopting.samples import read_image
from training.data.dataset import Dataset, Split
from training.data.heads import Head, naming
from training.data.sources.tree import entries
from training.errors import DataError, UnknownName
from training.publishing import comparison, gallery, held_out, samples
from training.publishing.evaluate import Evaluation, commonest, evaluate
from training.publishing.signatures import ImageShapes

MARGIN = 1.0  # points of 100 by which a version may be worse than the live one, as a recipe's


def labelled(
    paths: Sequence[Path],
    inputs: Mapping[str, Tensor],
    images: ImageShapes,
    heads: Mapping[str, Head],
) -> Dataset | None:
    """The user's samples with the class of each, as held-out images; None where they have none.

    paths: a folder with a folder of pictures for each class, by its label, for a model of one
    picture whose head names classes. Raises DataError, UnknownName for a folder that is no label.
    """
    named = naming(heads)
    classes = [folder for path in paths if path.is_dir() for folder in entries(path)[0]]
    if not (named and classes and [*images] == [*inputs] and len(images) == 1):
        return None
    (name, head), [(image, shape)] = next(iter(named.items())), images.items()
    numbers = {label: number for number, label in enumerate(head.labels)}
    found = []
    for folder in classes:
        if folder.name not in numbers:
            raise UnknownName("a folder of samples is called", folder.name, head.labels)
        found += [(file, numbers[folder.name]) for file in entries(folder)[1]]
    if not found:
        raise DataError(f"no picture in the folders {', '.join(map(str, classes[:5]))}")
    kept = held_out.spread(len(found), int(np.prod(shape)))
    split = Split(
        {image: np.stack([read_image(found[row][0], shape) for row in kept])},
        {name: np.array([found[row][1] for row in kept], np.int64)},
    )
    origin = ", ".join(path.name for path in paths)
    return Dataset(split, split, split, {name: head}, origin)


def compare(
    model: keras.Model, heads: Mapping[str, Head], dataset: Dataset | None, live: Path
) -> comparison.Comparison | str:
    """With the live version, on the samples that it keeps, else on these."""
    kept = held_out.read(live) or (held_out.of(dataset) if dataset else None)
    if kept is None:
        return f"Not compared with version {live.name}: neither has labelled samples"
    return comparison.compare_on(kept, model, heads, live)


def write(directory: Path, dataset: Dataset, model: keras.Model) -> dict[str, Any]:
    """The pictures, the samples and what is held out; gives what metrics.json has of it."""
    evaluation = evaluate(model, dataset)
    gallery.draw_answers(directory, dataset, _with_scores(evaluation, dataset))
    samples.write(directory / "samples", dataset)
    held_out.write(directory, held_out.of(dataset))
    return {
        "accuracy": evaluation.accuracy,
        "guessing": {
            name: commonest(dataset.test.targets[name], head.labels)[1]
            for name, head in dataset.heads.items()
        },
        "heads": dict(evaluation.metrics),
        "data": dataset.origin,
        "examples": {"train": 0, "validation": 0, "test": len(dataset.test)},
    }


def _with_scores(evaluation: Evaluation, dataset: Dataset) -> Evaluation:
    """Each head's scores [N, classes] in place of what the model gives: a logit, or one chance."""
    outputs = {
        name: np.asarray(head.probabilities(evaluation.outputs[name]))
        for name, head in naming(dataset.heads).items()
    }
    return replace(evaluation, outputs=outputs)

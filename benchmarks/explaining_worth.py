"""Pixels taken away and brought back by heat, and weights shuffled: digits and Fashion-MNIST."""

import argparse
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import keras
import numpy as np

from sluice.wire.tensors import Array
from training.build import build
from training.data.dataset import Dataset
from training.data.heads import naming
from training.data.load import load
from training.explaining import judging
from training.explaining.explainer import Explainer
from training.inference import predict
from training.settings import configure

SHARES = (0.05, 0.1, 0.2, 0.4)
_PICTURES = 200
_SEEDS = 5
_CHANGES: dict[str, Callable[[keras.Model, int], object]] = {
    "shuffled": lambda model, seed: [*judging.randomised(model, seed)],
    "drawn anew": judging.reinitialise,
}


def section(options: argparse.Namespace) -> Iterator[str]:
    yield (
        f"The probability of the answered class, on {_PICTURES} held-out pictures, when a share of "
        "the pixels becomes the picture's mean (deletion), or all but that share does (insertion); "
        "in brackets, pixels drawn at random:"
    )
    yield ""
    shares = " | ".join(f"{share:.0%}" for share in SHARES)
    yield f"| recipe | | whole | {shares} |"
    yield f"|---|---|---|{'---|' * len(SHARES)}"
    changed = []
    for recipe, settings in (
        ("digits", {"epochs": 20}),
        ("fashion", {"epochs": options.epochs, "limit": options.limit}),
    ):
        model, dataset = _trained(recipe, settings)
        yield from _rows(recipe, model, dataset)
        for what, change in _CHANGES.items():
            cells = " | ".join(_changed(model, dataset, change))
            changed.append(f"| `{recipe}` | {what} | {cells} |")
    yield ""
    yield (
        f"Rank correlation of heat with that after all weights are shuffled within their layers, "
        f"or drawn anew as before training, on the same pictures, mean and deviation of {_SEEDS} "
        f"seeds; `all` places of the picture, or those of the thing on its black ground; `floor`: "
        f"of two networks that were changed so by two seeds, and have nothing in common:"
    )
    yield ""
    yield "| recipe | weights | all | the thing | floor, all | floor, the thing |"
    yield "|---|---|---|---|---|---|"
    yield from changed


def _trained(name: str, settings: dict[str, object]) -> tuple[keras.Model, Dataset]:
    recipe = configure(name, settings)
    with TemporaryDirectory() as workspace:
        dataset = load(recipe, None, Path(workspace))
    model = build(recipe, dataset)
    model.compile(keras.optimizers.Adam(recipe.learning_rate), "sparse_categorical_crossentropy")
    split = dataset.train
    model.fit(
        split.inputs["image"].astype(np.float32),
        split.targets["label"],
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        verbose=0,
    )
    return model, dataset


def _explained(
    model: keras.Model, dataset: Dataset, classes: Array | None = None
) -> tuple[Array, Array, Array]:
    """Pictures [N, H, W, C], their heat [N, h, w] and the classes explained [N]: `classes`, or
    those that it answers."""
    images = dataset.test.inputs["image"][:_PICTURES].astype(np.float32)
    asked = np.full(len(images), -1, np.int32) if classes is None else classes
    answer = Explainer(model, naming(dataset.heads), ["image"]).graph(
        {"image": keras.ops.convert_to_tensor(images), "class": keras.ops.convert_to_tensor(asked)}
    )
    return images, answer["heatmap"].numpy(), answer["class"].numpy()


def _rows(recipe: str, model: keras.Model, dataset: Dataset) -> Iterator[str]:
    images, found, classes = _explained(model, dataset)
    by_heat = judging.on_the_picture(found, images.shape[1:3])
    by_chance = np.random.default_rng(0).random(by_heat.shape)

    def score(pictures: Array) -> float:
        return float(
            predict(model, {"image": pictures})["label"][range(len(classes)), classes].mean()
        )

    for what, change in (
        ("deletion", lambda heat, share: judging.hottest(heat, share)),
        ("insertion", lambda heat, share: ~judging.hottest(heat, share)),
    ):
        cells = [
            " ".join(
                wrap.format(score(judging.without(images, change(heat, share))))
                for wrap, heat in (("{:.3f}", by_heat), ("({:.3f})", by_chance))
            )
            for share in SHARES
        ]
        yield f"| `{recipe}` | {what} | {score(images):.3f} | {' | '.join(cells)} |"


def _changed(
    model: keras.Model, dataset: Dataset, change: Callable[[keras.Model, int], object]
) -> Iterator[str]:
    images, before, classes = _explained(model, dataset)
    thing = judging.off_the_ground(images, before.shape[1:3])
    kept, maps = model.get_weights(), []
    for seed in range(_SEEDS):
        change(model, seed)
        maps.append(_explained(model, dataset, classes)[1])
        model.set_weights(kept)
    for pairs in ([(before, each) for each in maps], [*itertools.combinations(maps, 2)]):
        for where in (None, thing):
            found = [judging.rank_correlation(*pair, where) for pair in pairs]
            yield f"{np.mean(found):.2f} ± {np.std(found):.2f}"

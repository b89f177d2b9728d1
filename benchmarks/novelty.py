"""How well each way of telling strange pictures tells them: `make bench-explain`, or this alone.

Two recipes are trained and each is shown the other's pictures, and its own spoilt. Of each way: the
AUROC against the held-out images, how many of the strange pictures are above the threshold, and how
many of the held-out ones. The last way is the one that is published (training/novelty).
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from report import machine
from sklearn.metrics import roc_auc_score

from sluice.wire.contract import ENCODED_SIGNATURE
from sluice.wire.tensors import Array
from training.build import build
from training.data.dataset import Dataset, spaced
from training.data.load import load
from training.fitting import devices, precision
from training.fitting.fit import fit
from training.novelty import fitting
from training.publishing import saved_model
from training.publishing.trials import encode_png
from training.recipes import Recipe
from training.settings import configure
from training.workspace import open_workspace

DOCS = Path(__file__).parents[1] / "docs" / "novelty.md"
MARK = "## Measured\n"
STRANGE = 3000  # pictures of the other recipe; of each way to spoil its own, a third
NEIGHBOUR = 10
TURNS = 500

Seen = tuple[Array, Array]  # the layer before the head [N, d], and the head's answers [N, classes]
Score = Callable[[Seen], Array]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, help="folder where trained models are kept")
    parser.add_argument("--limit", default="0", help="training images of fashion; 0: all")
    parser.add_argument("--docs", action="store_true", help=f"write {DOCS.name}")
    options = parser.parse_args()
    kept = options.models or Path(tempfile.mkdtemp())
    recipes = [configure("fashion", {"limit": options.limit}), configure("digits", {})]
    images = [load(recipe, None, Path(tempfile.mkdtemp())) for recipe in recipes]
    lines = [f"{datetime.now(UTC):%Y-%m-%d}, {machine()}.", ""]
    for place, (recipe, own) in enumerate(zip(recipes, images, strict=True)):
        lines += table(recipe, own, images[1 - place], recipes[1 - place].name, kept)
    text = "\n".join(lines)
    print(text)
    if options.docs:
        before, _, _ = DOCS.read_text().partition(MARK)
        DOCS.write_text(f"{before.rstrip()}\n\n{MARK}\n{text.rstrip()}\n")


def table(recipe: Recipe, own: Dataset, other: Dataset, name: str, kept: Path) -> Iterator[str]:
    model = trained(recipe, own, kept / f"{recipe.name}.keras")
    usual = own.test.inputs["image"]
    strange = spoilt(usual[: STRANGE // 3]) | {f"`{name}`": resized(other, usual.shape[1])}
    looked = {kind: look(model, pictures) for kind, pictures in strange.items()}
    held_out, known = look(model, usual), look(model, own.validation.inputs["image"])
    yield f"Trained on `{recipe.name}`, {len(usual):,} images held out. Each cell: AUROC, and how"
    yield "many are above the threshold that 99.5% of the validation images lie below.\n"
    yield f"| | false alarms | {' | '.join(looked)} |"
    yield f"|{'---|' * (2 + len(looked))}"
    for way, score in ways(model, own).items():
        usual_scores, threshold = score(held_out), np.quantile(score(known), fitting.QUANTILE)
        cells = [cell(usual_scores, score(each), threshold) for each in looked.values()]
        yield f"| {way} | {(usual_scores > threshold).mean():.1%} | {' | '.join(cells)} |"
    chosen = fitting.fit_trained(model, own)
    if isinstance(chosen, str):
        raise SystemExit(chosen)
    scores = [
        chosen.scores(model, own.heads, {"image": each}) for each in (usual, *strange.values())
    ]
    cells = [cell(scores[0], each, 1.0) for each in scores[1:]]
    alarms = f"{(scores[0] > 1).mean():.1%}"
    yield f"| **one mean, roots of the last maps** | {alarms} | {' | '.join(cells)} |\n"
    yield f"What it adds to a call of `encoded`: {costs(model, own, chosen)}.\n"


def costs(model: keras.Model, dataset: Dataset, chosen: fitting.Novelty) -> str:
    """Of the graph alone, as a model server runs it, with and without in turns."""
    files = np.array([encode_png(image) for image in dataset.test.inputs["image"][:32]], object)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        sessions = []
        for name, spread in ("without", None), ("with", chosen.spread):
            saved_model.write(model, dataset.heads, Path(folder, name), spread=spread)
            sessions.append(stack.enter_context(saved_model.Session(Path(folder, name))))
        return " and ".join(
            f"{cost(sessions, {'image': files[:rows]}):+.1%} of {rows} rows" for rows in (1, 32)
        )


def cost(sessions: Sequence[saved_model.Session], inputs: Mapping[str, Array]) -> float:
    """How much longer the second takes, by each one's fastest fifth: the machine has others."""
    seconds = np.empty((TURNS, len(sessions)))
    for turn in range(TURNS):
        for place, session in enumerate(sessions):
            began = time.perf_counter()
            session.run(ENCODED_SIGNATURE, inputs)
            seconds[turn, place] = time.perf_counter() - began
    without, with_it = np.quantile(seconds[TURNS // 10 :], 0.2, axis=0)
    return float(with_it / without - 1)


def cell(usual: Array, strange: Array, threshold: float) -> str:
    right = np.repeat([0, 1], [len(usual), len(strange)])
    area = roc_auc_score(right, np.concatenate([usual, strange]))
    return f"{area:.3f}, {(strange > threshold).mean():.0%}"


def trained(recipe: Recipe, dataset: Dataset, path: Path) -> keras.Model:
    if path.exists():
        return keras.models.load_model(path, compile=False)
    model = build(recipe, dataset, precision.policy(recipe.precision))
    workspace = open_workspace(Path(tempfile.mkdtemp()) / recipe.name)
    fit(model, dataset, recipe, devices.strategy_for(recipe), workspace, resume=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save(path)
    return model


def spoilt(images: Array) -> Mapping[str, Array]:
    rng = np.random.default_rng(0)
    return {
        "inverted": 255 - images,
        "noisy": np.clip(images + rng.normal(0, 50, images.shape), 0, 255),
        "nothing but noise": rng.integers(0, 256, images.shape),
    }


def resized(dataset: Dataset, side: int) -> Array:
    """STRANGE of its test and training images, as a published model resizes."""
    images = np.concatenate([dataset.test.inputs["image"], dataset.train.inputs["image"]])
    small = tf.image.resize(images[spaced(len(images), STRANGE)], (side, side), antialias=True)
    return np.round(small).astype(np.uint8)


def look(model: keras.Model, images: Array) -> Seen:
    """The model's head is its last layer."""
    seeing = keras.Model(model.inputs, [model.layers[-1].input, *model.outputs])
    layer, answers = seeing.predict(images.astype(np.float32), batch_size=256, verbose=0)
    return layer, answers


def ways(model: keras.Model, dataset: Dataset) -> dict[str, Score]:
    """Those of the literature, on the layer before the head."""
    rows = spaced(len(dataset.train), fitting.MOST)
    layer, _ = look(model, dataset.train.inputs["image"][rows])
    target = dataset.train.targets["label"][rows]
    means = np.stack([layer[target == each].mean(axis=0) for each in range(dataset.classes)])
    within, all_ = whitened(layer - means[target]), whitened(layer - layer.mean(axis=0))
    bank = unit(layer)

    def to_class(seen: Seen) -> Array:
        gaps = (seen[0][:, None] - means[None]) @ within
        return np.square(gaps).sum(axis=-1).min(axis=1)

    def to_all(seen: Seen) -> Array:
        return np.square((seen[0] - layer.mean(axis=0)) @ all_).sum(axis=-1)

    def to_neighbour(seen: Seen) -> Array:
        nearest = np.partition(-unit(seen[0]) @ bank.T, NEIGHBOUR - 1, axis=1)
        return nearest[:, NEIGHBOUR - 1]

    return {
        "1 - the highest score": lambda seen: 1 - seen[1].max(axis=-1),
        "Mahalanobis to a class's mean (Lee et al. 2018)": to_class,
        "relative Mahalanobis (Ren et al. 2021)": lambda seen: to_class(seen) - to_all(seen),
        f"neighbour {NEIGHBOUR} of {len(bank):,} (Sun et al. 2022)": to_neighbour,
    }


def whitened(centred: Array) -> Array:
    covariance = np.cov(centred.T)
    ridge = 1e-3 * covariance.trace() / len(covariance) * np.eye(len(covariance))
    return np.linalg.cholesky(np.linalg.inv(covariance + ridge))


def unit(layer: Array) -> Array:
    return layer / np.maximum(np.linalg.norm(layer, axis=-1, keepdims=True), 1e-9)


if __name__ == "__main__":
    main()

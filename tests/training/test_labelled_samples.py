"""Samples in folders of their labels: figures, pictures, and a guard for the version after it."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

import training
from training.errors import UnknownName, Worse
from training.publishing import held_out

LABELS = ("dark", "light")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures of each class, in folders of their names."""
    folder = tmp_path_factory.mktemp("photos")
    for label, grey in zip(LABELS, (20, 230), strict=True):
        (folder / label).mkdir()
        for number in range(3):
            Image.new("L", (8, 8), grey + number).save(folder / label / f"{number}.png")
    return folder


def brightness(*, turned: bool) -> keras.Model:
    """One sigmoid: the chance that a picture is light, or, `turned`, that it is dark."""
    image = keras.Input((8, 8, 1), name="image")
    x = layers.GlobalAveragePooling2D()(layers.Rescaling(1 / 255)(image))
    sign = -1 if turned else 1
    dense = layers.Dense(1, activation="sigmoid", name="label")
    model = keras.Model(image, dense(x))
    dense.set_weights([np.array([[sign * 20.0]]), np.array([sign * -10.0])])
    return model


def publish(model: keras.Model, repository: Path, samples: list[Path], **options: Any) -> Path:
    options = {"labels": LABELS, "samples": samples, "say": lambda _line: None, **options}
    return training.publish(model, model_repository=repository, name="light", **options)


def test_they_are_measured_on_and_guard_the_version_after_it(photos: Path, tmp_path: Path) -> None:
    version = publish(brightness(turned=False), tmp_path, [photos])
    facts = json.loads((version / "metrics.json").read_text())
    assert facts["heads"] == {"label": {"accuracy": 1.0, "per_class": {"dark": 1.0, "light": 1.0}}}
    assert facts["guessing"] == {"label": 0.5}
    assert facts["examples"]["test"] == 6
    assert "| dark | 1.0000 |" in (version / "model-card.md").read_text()
    assert {"confusion.png", "mistakes.png"} <= {path.name for path in version.iterdir()}
    assert sorted(path.name for path in (version / "samples").iterdir()) == [
        "dark-0.png",
        "dark-1.png",
        "light-0.png",
        "light-1.png",
    ]
    assert held_out.read(version).targets["label"].tolist() == [0, 0, 0, 1, 1, 1]

    # Held against what the live version keeps: the worse one brings no samples itself.
    with pytest.raises(Worse, match=r"accuracy 0.0%, the live version's 100.0%.*--allow-worse"):
        publish(brightness(turned=True), tmp_path, [])
    said: list[str] = []
    options = {"allow_worse": True, "say": said.append}
    assert publish(brightness(turned=True), tmp_path, [], **options).name == "2"
    assert "On the same 6 held-out samples as version 1" in said[-1]


def test_a_folder_that_is_no_label_is_named_with_the_nearest(photos: Path, tmp_path: Path) -> None:
    for name in ("dark", "ligth"):
        (tmp_path / name).symlink_to(photos / LABELS[name != "dark"])
    with pytest.raises(UnknownName, match="'ligth'; known, nearest first: light"):
        publish(brightness(turned=False), tmp_path / "repository", [tmp_path])

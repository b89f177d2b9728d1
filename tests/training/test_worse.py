"""A version that is worse than the live one does not go live in silence."""

import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest

from training.data.dataset import Dataset, Split
from training.data.heads import Classes, Mask, Number
from training.errors import Worse
from training.publishing import held_out
from training.publishing.comparison import Comparison, Figure, compare
from training.publishing.publish import publish


@pytest.fixture(scope="module")
def knowing(dataset):
    """A model that knows the test images by heart: nearest neighbour, as a matrix."""
    pixels = dataset.test.inputs["image"].reshape(len(dataset.test), -1).astype(np.float32)
    image = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Flatten()(image)
    x = keras.layers.Dense(len(pixels), name="nearness")(x)
    x = keras.layers.Softmax()(x)
    label = keras.layers.Dense(10, use_bias=False, name="label")(x)
    model = keras.Model(image, label)
    norms = (pixels**2).sum(axis=1)
    model.get_layer("nearness").set_weights([2 * pixels.T, -norms])
    model.get_layer("label").set_weights([np.eye(10)[dataset.test.targets["label"]]])
    return model


@pytest.fixture(scope="module")
def live(knowing, dataset, run_of, tmp_path_factory):
    """A repository whose version 1 is right every time."""
    repository = tmp_path_factory.mktemp("repository")
    publish(knowing, dataset, run_of(knowing), repository, "digits")
    return repository


def test_it_is_refused_with_both_figures_and_published_where_asked_for(
    model, dataset, run_of, live, tmp_path, capsys
):
    repository = tmp_path / "repository"
    shutil.copytree(live, repository)
    run = run_of()
    figure = f"label accuracy {run.evaluation.accuracy:.1%}, the live version's 100.0%"
    with pytest.raises(Worse, match=rf"64 held-out samples of version 1, .* 1 in 100: {figure}"):
        publish(model, dataset, run, repository, "digits")
    assert f"On the same 64 held-out samples as version 1: {figure}" in capsys.readouterr().out
    assert [entry.name for entry in (repository / "digits").iterdir()] == ["1"]

    wide = dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, margin=100.0))
    assert publish(model, dataset, wide, repository, "digits").name == "2"
    # The new live version is as bad, and its own samples are what counts now.
    assert publish(model, dataset, run, repository, "digits").name == "3"


def test_it_is_held_against_what_the_live_version_keeps(knowing, dataset, live):
    """Whatever the new run calls its test images."""
    wrong = Split(dataset.test.inputs, {"label": (dataset.test.targets["label"] + 1) % 10})
    other = dataclasses.replace(dataset, test=wrong)
    compared = compare(knowing, other, live / "digits" / "1")
    assert compared.figures == [Figure("label", "accuracy", 1.0, 1.0)]


def test_classes_are_compared_by_their_names(knowing, dataset, live):
    """The same answers under the names in reverse are as wrong as can be."""
    heads = {"label": Classes(tuple(reversed("0123456789")))}
    compared = compare(knowing, dataclasses.replace(dataset, heads=heads), live / "digits" / "1")
    [figure] = compared.figures
    assert figure.live == 1.0 and figure.new == 0.0


def test_a_version_that_keeps_no_samples_is_asked_about_the_new_ones(
    model, dataset, live, tmp_path
):
    shutil.copytree(live / "digits" / "1", tmp_path / "7", ignore=lambda *_: [held_out.FILE])
    assert compare(model, dataset, tmp_path / "7").figures[0].live == 1.0


def test_what_cannot_be_compared_says_so(model, dataset, live, tmp_path):
    narrow = Split({"image": dataset.test.inputs["image"][:, :4]}, dataset.test.targets)
    shutil.copytree(live / "digits" / "1", tmp_path / "1")
    kept = held_out.of(dataclasses.replace(dataset, test=narrow))
    held_out.write(tmp_path / "1", kept)
    assert "another shape" in compare(model, dataset, tmp_path / "1")
    held_out.write(tmp_path / "1", held_out.of(dataset))
    (tmp_path / "1" / "variables" / "variables.index").unlink()
    assert "cannot be asked: " in compare(model, dataset, tmp_path / "1")


def test_a_margin_is_of_points_and_for_every_head():
    def compared(live, new):
        figures = [Figure("a", "accuracy", 0.5, 0.9), Figure("b", "iou", live, new)]
        return Comparison("3", 100, figures)

    compared(0.95, 0.94).check(1, "")
    with pytest.raises(Worse, match=r"b iou 93\.9%.*Do this"):
        compared(0.95, 0.939).check(1, "Do this")
    with pytest.raises(Worse):
        compared(0.95, 0.949).check(0, "")


def test_samples_of_every_kind_come_back_as_they_were(tmp_path):
    rng = np.random.default_rng(0)
    split = Split(
        {"left": rng.integers(0, 256, (5, 4, 4, 3), np.uint8)},
        {
            "label": np.array([0, 1, 1, 0, 300]),
            "mask": rng.integers(0, 2, (5, 4, 4)),
            "size": rng.random(5, np.float32),
        },
    )
    heads = {
        "label": Classes(tuple(map(str, range(301)))),
        "mask": Mask(("ground", "größe")),
        "size": Number(),
    }
    samples = held_out.of(Dataset(split, split, split, heads, "nowhere"))
    held_out.write(tmp_path, samples)
    read = held_out.read(tmp_path)
    assert read.labels == {name: tuple(head.labels) for name, head in heads.items()}
    for name, target in split.targets.items():
        np.testing.assert_array_equal(read.targets[name], target)
    np.testing.assert_array_equal(read.inputs["left"], split.inputs["left"])
    assert (tmp_path / held_out.FILE).stat().st_size < held_out.stored_bytes(samples) + 4096


def test_of_many_large_images_some_of_each_class_are_kept(monkeypatch):
    monkeypatch.setattr(held_out, "_MOST_BYTES", 10 * 48)
    targets = np.repeat([0, 1, 2], 20)  # as a folder's lie
    split = Split({"image": np.zeros((60, 4, 4, 3), np.uint8)}, {"label": targets})
    dataset = Dataset(split, split, split, {"label": Classes(("a", "b", "c"))}, "nowhere")
    assert np.bincount(held_out.of(dataset).targets["label"]).tolist() == [4, 3, 3]


def test_the_first_version_says_what_guessing_would_come_to(version):
    facts = json.loads((version / "metrics.json").read_text())
    targets = np.load(version / held_out.FILE)["target/label"]
    assert facts["guessing"]["label"] == np.bincount(targets).max() / len(targets)

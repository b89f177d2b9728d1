"""People's own images: folders by class, and CSV files of paths and targets."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

import training
from training.data.load import load
from training.errors import DataError
from training.recipes import RECIPES

RECIPE = dataclasses.replace(RECIPES["cnn_functional"], image_size=16)


def save(path, colour, kind=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 24), colour).save(path, kind)


@pytest.fixture
def photos(tmp_path):
    """20 red, 20 blue; sizes and formats as people have them."""
    for number in range(20):
        kind = ("png", "jpg", "bmp", "gif")[number % 4]
        save(tmp_path / "photos" / "red" / f"{number}.{kind}", (200, 12 * number, 10))
        save(tmp_path / "photos" / "blue" / "more" / f"{number}.{kind}", (10, 12 * number, 200))
    return tmp_path / "photos"


@pytest.fixture
def workspace(tmp_path):
    (tmp_path / "workspace").mkdir()
    return tmp_path / "workspace"


def shades(split):
    """Each image told from the others by its colour, which JPEG changes by 2 at most."""
    return {tuple((image[0, 0] + 3) // 12) for image in split.inputs["image"]}


class TestFolder:
    def test_classes_are_the_folders_in_order(self, photos, workspace):
        dataset = load(RECIPE, photos, workspace)
        assert dataset.heads["label"].labels == ("blue", "red")
        assert dataset.input_shape == (16, 16, 3)
        for split in (dataset.train, dataset.validation, dataset.test):
            red = split.inputs["image"][..., 0].mean(axis=(1, 2)) > 100
            np.testing.assert_array_equal(split.targets["label"], red)

    def test_every_class_is_split_in_proportion(self, photos, workspace):
        dataset = load(RECIPE, photos, workspace)
        counts = [
            np.bincount(split.targets["label"]).tolist()
            for split in (dataset.train, dataset.validation, dataset.test)
        ]
        assert counts == [[14, 14], [3, 3], [3, 3]]

    def test_the_split_is_remembered_when_images_come_and_go(self, photos, workspace):
        before = load(RECIPE, photos, workspace)
        trained, held_out = shades(before.train), shades(before.test)
        for number in range(20, 40):
            save(photos / "red" / f"{number}.png", (100, 12 * (number - 20), 10))
        (photos / "blue" / "more" / "0.png").unlink()
        after = load(RECIPE, photos, workspace)
        assert len(after.test) > len(held_out)
        assert not held_out & shades(after.train)
        assert not trained & shades(after.test)

    def test_the_split_does_not_depend_on_where_the_folder_lies(self, photos, workspace, tmp_path):
        (tmp_path / "other").mkdir()
        here = shades(load(RECIPE, photos, workspace).test)
        there = photos.rename(tmp_path / "elsewhere")
        assert here == shades(load(RECIPE, there, tmp_path / "other").test)

    def test_unreadable_files_are_listed_and_skipped(self, photos, workspace, capsys):
        (photos / "red" / "notes.txt").write_text("bought in May")
        (photos / "red" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut off")
        (photos / "red" / ".DS_Store").write_bytes(b"hidden")
        dataset = load(RECIPE, photos, workspace)
        assert sum(map(len, (dataset.train, dataset.validation, dataset.test))) == 40
        said = capsys.readouterr().out
        assert "Skipped 2 files" in said and "notes.txt" in said and "broken.jpg" in said
        assert len((workspace / "skipped.txt").read_text().splitlines()) == 2

    def test_grey_models_get_grey_images(self, photos, workspace):
        recipe = dataclasses.replace(RECIPE, channels=1)
        assert load(recipe, photos, workspace).input_shape == (16, 16, 1)

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (
                lambda photos: (photos / "red").rename(photos.parent / "away"),
                "1 folders: expected one",
            ),
            (lambda photos: (photos / "green").mkdir(), "class 'green' has 0 files"),
            (
                lambda photos: (
                    [(photos / "green").mkdir()]
                    + [(photos / "green" / f"{n}.png").write_text("no image") for n in range(5)]
                ),
                "class 'green' has no readable image",
            ),
        ],
    )
    def test_a_folder_that_cannot_be_trained_on(self, photos, workspace, spoil, message):
        spoil(photos)
        with pytest.raises(DataError, match=message):
            load(RECIPE, photos, workspace)

    def test_a_folder_that_is_not_there(self, tmp_path, workspace):
        with pytest.raises(DataError, match=r"there is no .*photo: expected a folder"):
            load(RECIPE, tmp_path / "photo", workspace)

    def test_a_folder_without_folders(self, tmp_path, workspace):
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match="no folder of images"):
            load(RECIPES["digits"], tmp_path / "empty", workspace)

    def test_trains_to_a_published_version(self, photos, tmp_path):
        version = training.train(
            "cnn_functional",
            model_repository=tmp_path / "repository",
            data=photos,
            epochs=4,
            name="colours",
            settings={"image_size": "16", "batch_size": "8"},
        )
        facts = json.loads((version / "metrics.json").read_text())
        assert facts["labels"] == {"label": ["blue", "red"]}
        assert facts["accuracy"] == 1.0
        assert facts["data"] == "the images in photos/"
        left = {entry.name for entry in (version.parent / ".training").iterdir()}
        assert left == {"split.csv", "tensorboard"}


class TestTable:
    @pytest.fixture
    def table(self, photos):
        path = photos.parent / "pairs.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("left", "right", "left_digit", "right_digit", "label"))
            for row in range(40):
                one, other = row % 20, (row * 7) % 20
                names = [
                    f"photos/red/{n}.{('png', 'jpg', 'bmp', 'gif')[n % 4]}" for n in (one, other)
                ]
                writer.writerow((*names, one % 3, other % 3, "ab"[row % 2]))
        return path

    def test_two_inputs_by_their_columns(self, table, workspace):
        dataset = load(dataclasses.replace(RECIPES["two_view"], image_size=8), table, workspace)
        assert set(dataset.train.inputs) == {"left", "right"}
        assert dataset.heads["label"].labels == ("a", "b")
        assert len(dataset.train) + len(dataset.validation) + len(dataset.test) == 40

    def test_a_total_is_added_up(self, table, workspace):
        dataset = load(dataclasses.replace(RECIPES["digit_sum"], image_size=8), table, workspace)
        targets = dataset.test.targets
        np.testing.assert_array_equal(
            targets["sum"], targets["left_digit"] + targets["right_digit"]
        )
        assert dataset.heads["sum"].labels == ("0", "1", "2", "3", "4")
        assert dataset.classes == 3

    @pytest.mark.parametrize(
        ("recipe", "content", "message"),
        [
            ("two_view", "left,right\na.png,b.png\n", "label missing"),
            ("two_view", "left,right,label\n", "0 rows"),
            (
                "two_view",
                "left,right,label\n" + "a.png,b.png,x\n" * 3 + "a.png,b.png\n",
                "line 5: label missing",
            ),
            ("two_view", "left,right,label\n" + "a.png,b.png,x\n" * 5, "one class only, 'x'"),
            (
                "digit_sum",
                "left,right,left_digit,right_digit\n" + "a,b,1,x\n" * 5,
                "from 0 on, not 'x'",
            ),
            (
                "multi_head",
                "image,label,coverage\na,x,0.5\nb,y,half\nc,x,1\n",
                "line 3: coverage must be a number, not 'half'",
            ),
            ("unet", "image,mask\na,b\n", "takes no CSV file"),
        ],
    )
    def test_a_table_that_cannot_be_trained_on(self, tmp_path, workspace, recipe, content, message):
        (tmp_path / "table.csv").write_text(content)
        with pytest.raises(DataError, match=message):
            load(RECIPES[recipe], tmp_path / "table.csv", workspace)

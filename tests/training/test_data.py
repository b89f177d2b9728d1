"""People's own images: folders by class, and CSV files of paths and targets."""

import csv
import dataclasses
import json
import os
import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

import training
from training.data.load import load
from training.data.sources.table_paths import find_file
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
                "one folder only, blue/: expected one folder for each class",
            ),
            (lambda photos: (photos / "green").mkdir(), "class 'green' has 0 files"),
            (lambda photos: save(photos / "green/1.png", "green"), "class 'green' has 1 file in"),
            (lambda photos: save(photos / "Red/1.png", "red"), "'Red' and 'red', which differ in"),
            (
                lambda photos: save(
                    photos / b"caf\xe9".decode("utf-8", "surrogateescape") / "1.png", "red"
                ),
                r"caf\\xe9 is not UTF-8",
            ),
            (
                lambda photos: [
                    (photos / name).rename(photos / "all" / name)
                    for name in ("red", "blue")
                    if (photos / "all").mkdir(exist_ok=True) is None
                ],
                "did you mean .*photos/all",
            ),
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
        (tmp_path / "empty/.ipynb_checkpoints").mkdir()
        for recipe in ("digits", "fashion"):
            with pytest.raises(
                DataError, match=r"0 files and no folder in it: expected one folder"
            ):
                load(RECIPES[recipe], tmp_path / "empty", workspace)
        save(tmp_path / "empty/1.png", "red")
        with pytest.raises(DataError, match="1 file and no folder in it") as caught:
            load(RECIPES["fashion"], tmp_path / "empty", workspace)
        assert "Fashion" not in str(caught.value)

    def test_what_tools_leave_is_left_out_at_every_level(self, photos, workspace, capsys):
        for left in (
            ".ipynb_checkpoints/red-checkpoint.png",
            "__MACOSX/._red.png",
            "red/.ipynb_checkpoints/0-checkpoint.png",
            "red/__MACOSX/red/0.png",
            "blue/more/@eaDir/0.png",
            "blue/more/._0.png",
        ):
            save(photos / left, "white", "PNG")
        (photos / "red/Thumbs.db").write_bytes(b"thumbnails")
        (photos / "desktop.ini").write_text("[view]")
        dataset = load(RECIPE, photos, workspace)
        assert dataset.heads["label"].labels == ("blue", "red")
        assert sum(map(len, (dataset.train, dataset.validation, dataset.test))) == 40
        assert "Skipped" not in capsys.readouterr().out

    def test_names_in_any_bytes_and_case_are_read(self, photos, workspace, capsys):
        odd = os.fsdecode(b"caf\xe9\n")
        save(photos / "red" / f"{odd}.PNG", "red")
        (photos / "red" / f"{odd}.txt").write_text("no picture")
        for _ in range(2):  # the second reads what the first remembered
            dataset = load(RECIPE, photos, workspace)
            assert sum(map(len, (dataset.train, dataset.validation, dataset.test))) == 41
        assert r"caf\xe9" in capsys.readouterr().out

    def test_links_in_a_circle_are_followed_once(self, photos, workspace):
        (photos / "red/again").symlink_to(photos / "red")
        (photos / "green").symlink_to(photos / "blue")
        dataset = load(RECIPE, photos, workspace)
        assert dataset.heads["label"].labels == ("blue", "green", "red")
        assert sum(map(len, (dataset.train, dataset.validation, dataset.test))) == 60


class TestReadySplit:
    @pytest.fixture
    def divided(self, photos):
        """3 of each class in val/, 4 in test/, the others in train/."""
        for label, folder in (("red", "red"), ("blue", "blue/more")):
            for number, file in enumerate(sorted((photos / folder).iterdir())):
                part = "val" if number < 3 else "Test" if number < 7 else "train"
                (photos / part / label).mkdir(parents=True, exist_ok=True)
                file.rename(photos / part / label / file.name)
        for label in ("red", "blue"):
            shutil.rmtree(photos / label)
        return photos

    def counts(self, dataset):
        return [
            np.bincount(split.targets["label"]).tolist()
            for split in (dataset.train, dataset.validation, dataset.test)
        ]

    def test_its_parts_are_taken_as_they_are(self, divided, workspace):
        dataset = load(RECIPE, divided, workspace)
        assert dataset.heads["label"].labels == ("blue", "red")
        assert self.counts(dataset) == [[13, 13], [3, 3], [4, 4]]

    @pytest.mark.parametrize(
        ("missing", "counts"),
        [
            (["val"], [[11, 11], [2, 2], [4, 4]]),
            (["Test"], [[11, 11], [3, 3], [2, 2]]),
            (["val", "Test"], [[9, 9], [2, 2], [2, 2]]),
        ],
    )
    def test_what_is_missing_is_taken_from_train(self, divided, workspace, missing, counts):
        for folder in missing:
            shutil.rmtree(divided / folder)
        assert self.counts(load(RECIPE, divided, workspace)) == counts

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda data: save(data / "cat/1.png", "red"), "beside cat/: expected either a folder"),
            (lambda data: shutil.rmtree(data / "train"), "has Test/, val/: expected either"),
            (lambda data: save(data / "training/red/1.png", "red"), "expected either"),
            (lambda data: save(data / "val/green/1.png", "red"), "green is no class of .*train"),
            (
                lambda data: (shutil.rmtree(data / "Test"), save(data / "Test/1.png", "red")),
                "has 1 file and no folder in it: which class .* or move it away",
            ),
        ],
    )
    def test_what_is_neither_split_nor_classes_is_refused(self, divided, workspace, spoil, message):
        spoil(divided)
        with pytest.raises(DataError, match=message):
            load(RECIPE, divided, workspace)

    def test_trains_are_a_class_like_any_other(self, photos, workspace):
        (photos / "red").rename(photos / "train")
        dataset = load(RECIPE, photos, workspace)
        assert dataset.heads["label"].labels == ("blue", "train")


class TestTraining:
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


ABSENT = "image,label\n" + "".join(f"a{row},{'xy'[row % 2]}\n" for row in range(6))


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
            ("cnn_functional", "image,label\na,x\na,y\nb,y\n", "lines 2 and 3 name the same image"),
            ("cnn_functional", "image,label\na,x\nb,X\nc,x\n", "'X' and 'x', which differ"),
            ("cnn_functional", "image,label\na, b.png,x\n", "line 2: 3 values for 2 columns"),
            ("cnn_functional", "image,label\na,x\nb,y\nc,x\n", "has 1 row whose label is 'y'"),
            ("cnn_functional", ABSENT, "line 2: there is no file 'a0', nor"),
            ("multi_head", "image,label,coverage\na,x,0.5\nb,y,nan\nc,x,1\n", "number, not 'nan'"),
            ("cnn_functional", b"image,label\ncaf\xe9,x\n", r"line 2: not UTF-8 text .*CSV UTF-8"),
            ("cnn_functional", b"PK\x03\x04workbook", "is a workbook .*CSV UTF-8"),
            ("cnn_functional", 'image,label\n"a,x\n', "table.csv, line 2: "),
            ("cnn_functional", "", r"has the columns \(none\)"),
        ],
    )
    def test_a_table_that_cannot_be_trained_on(self, tmp_path, workspace, recipe, content, message):
        raw = content if isinstance(content, bytes) else content.encode()
        (tmp_path / "table.csv").write_bytes(raw)
        with pytest.raises(DataError, match=message):
            load(RECIPES[recipe], tmp_path / "table.csv", workspace)

    SHEET = (
        'image,label,coverage\n"photos/red/0.png",a,0.5\n\nphotos/red/4.png, b ,1\n'
        "photos/red/8.png,a,0\nphotos/red/12.png,b,0\nphotos/red/16.png,a,1\n"
        "photos/red/1.jpg,b,0.5\n"
    )

    @pytest.mark.parametrize(
        "written",
        [
            SHEET.encode("utf-8-sig"),
            SHEET.encode("utf-16"),
            SHEET.encode("utf-16-le"),
            SHEET.replace("\n", "\r\n").encode(),
            SHEET.replace("\n", "\r").encode(),
            SHEET.replace(",", ";")
            .replace("0.5", "0,5")
            .replace("image;label", "Image;LABEL")
            .encode(),
            ("sep=;\r\n" + SHEET.replace(",", ";")).encode("utf-8-sig"),
            SHEET.replace(",", "\t").encode("utf-16"),
            SHEET.replace("\n\n", "\n,,\n").encode(),
            SHEET.replace("/", "\\").encode(),
            SHEET.replace("photos/", "./photos/../photos/").encode(),
        ],
        ids=[
            "bom",
            "utf-16",
            "no-bom",
            "windows",
            "old-mac",
            "comma",
            "sep",
            "tabs",
            "empty",
            "backslash",
            "dots",
        ],
    )
    def test_tables_as_spreadsheets_of_any_country_write_them(self, photos, workspace, written):
        (photos.parent / "sheet.csv").write_bytes(written)
        recipe = dataclasses.replace(RECIPES["multi_head"], image_size=8)
        dataset = load(recipe, photos.parent / "sheet.csv", workspace)
        assert dataset.heads["label"].labels == ("a", "b")
        covered = [
            split.targets["coverage"] for split in (dataset.train, dataset.validation, dataset.test)
        ]
        assert sorted(np.concatenate(covered)) == [0, 0, 0.5, 0.5, 1, 1]

    def test_paths_as_other_systems_write_them(self, photos):
        save(photos / "Äpfel" / "1 2.png", "red")
        file = photos / "Äpfel" / "1 2.png"
        for written in (
            file.as_uri(),
            str(file),
            "photos\\Äpfel\\1 2.png",
            unicodedata.normalize("NFD", "photos/Äpfel/1 2.png"),
        ):
            assert find_file(written, photos.parent) == file
        assert find_file("C:\\photos\\1.png", photos.parent).name == "C:\\photos\\1.png"

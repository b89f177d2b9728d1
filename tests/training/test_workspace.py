"""What stops a run is found before it begins, and what stops it half way loses nothing."""

import errno
import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import training
from sluice.wire.saved_model import read_signatures
from training.build import build
from training.data.tasks import TASKS
from training.errors import BreakingChange, CannotResume, DiskFull, Occupied, PublishError
from training.fitting import checkpoint
from training.fitting.checkpoint import Progress
from training.fitting.fit import fit
from training.publishing import checks, saved_model
from training.publishing.signatures import SignatureGraphs
from training.publishing.version_directory import publish_directory
from training.recipes import RECIPES
from training.surroundings.disk import allocate, room_for
from training.workspace import CHECKPOINT, occupied, open_workspace, resumable

HOLD = """
import sys
from pathlib import Path
from training.workspace import occupied
with occupied(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_runs_of_one_model_are_told_apart(tmp_path):
    workspace = open_workspace(tmp_path / "digits")
    (workspace / CHECKPOINT).write_text("the other's")
    with subprocess.Popen(
        [sys.executable, "-P", "-c", HOLD, workspace],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(Occupied, match=r"another run trains 'digits' in .* by --name"):
            training.train("digits", model_repository=tmp_path)
        assert (workspace / CHECKPOINT).read_text() == "the other's"
        other.kill()
    with occupied(workspace):  # which the kernel gave back
        pass


def test_nothing_of_a_run_is_in_the_way_of_the_next(tmp_path):
    workspace = open_workspace(tmp_path / "digits")
    with pytest.raises(RuntimeError), occupied(workspace):
        (workspace / "images-1").mkdir()
        raise RuntimeError
    assert [*workspace.iterdir()] == []


@pytest.mark.parametrize("spoilt", ["digits", "digits/.training"])
def test_a_repository_that_cannot_be_written_is_found_before_training(tmp_path, spoilt):
    (tmp_path / spoilt).parent.mkdir(exist_ok=True)
    (tmp_path / spoilt).write_text("a file in the way")
    with pytest.raises(PublishError, match=r"cannot write to .*digits"):
        training.train("digits", model_repository=tmp_path)


def test_a_breaking_signature_is_found_before_training(version, tmp_path, monkeypatch):
    shutil.copytree(version, tmp_path / "digits" / "1")
    monkeypatch.setattr("training.run.fit", lambda *_, **__: pytest.fail("it was trained"))
    with pytest.raises(BreakingChange, match=r"image was float32\[\?,8,8,1\], is .*16,16,1"):
        training.train(
            "digits",
            model_repository=tmp_path,
            settings={"image_size": 16, "precision": "mixed_bfloat16"},
        )


@pytest.mark.parametrize("name", ["multi_head", "gan"])
def test_what_is_planned_is_what_is_published(name, dataset, tmp_path):
    """In half precision too, which the published one is not in."""
    recipe = RECIPES[name]
    asked = TASKS[recipe.task](dataset)
    half = build(recipe, asked, keras.DTypePolicy("mixed_bfloat16"))
    planned = {
        signature: checks.planned(function)
        for signature, function in SignatureGraphs(half, asked.heads).by_name().items()
    }
    saved_model.write(build(recipe, asked), asked.heads, tmp_path)
    written = read_signatures(tmp_path)
    assert planned.keys() == written.keys()
    for signature, definition in written.items():
        for side in ("inputs", "outputs"):
            ours, theirs = getattr(planned[signature], side), getattr(definition, side)
            assert {key: checks.described(info) for key, info in ours.items()} == {
                key: checks.described(info) for key, info in theirs.items()
            }


class TestFullDisk:
    """/dev/full is a disk with no room left; more than there is fits on none."""

    def test_what_cannot_fit_is_refused_beforehand(self, tmp_path):
        with (
            pytest.raises(DiskFull, match=r"a version needs [0-9.]+ TB .*so that .* are missing"),
            room_for("a version", tmp_path, 10**18),
        ):
            pytest.fail("it was begun")

    @pytest.mark.parametrize(
        "error",
        [
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
            OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
            tf.errors.ResourceExhaustedError(None, None, "x.data; No space left on device"),
        ],
    )
    def test_whoever_says_it(self, tmp_path, error):
        with pytest.raises(DiskFull, match="there was no room for a version"):
            publish_directory(tmp_path / "m", lambda _: raise_(error))
        assert not (tmp_path / "m").exists()

    def test_other_errors_stay_what_they_are(self, tmp_path):
        with pytest.raises(PermissionError), room_for("a version", tmp_path):
            raise PermissionError(errno.EACCES, "no")

    def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(self, tmp_path):
        recipe, path = RECIPES["digits"], tmp_path / CHECKPOINT
        variable = keras.Variable(np.zeros(1000, np.float32))
        checkpoint.save(path, recipe, Progress({"loss": [1.0]}), [variable])
        path.with_suffix(".partial").symlink_to("/dev/full")
        with (
            pytest.raises(DiskFull, match=r"a checkpoint, of 4\.0 kB .* --resume goes on after"),
            resumable(tmp_path),
        ):
            checkpoint.save(path, recipe, Progress({"loss": [1.0, 0.5]}), [variable])
        assert checkpoint.restore(path, recipe, [variable]).epochs == 1
        assert [entry.name for entry in tmp_path.iterdir()] == [CHECKPOINT]

    def test_pixels_have_their_place_before_they_are_read(self, tmp_path):
        path = tmp_path / "image.npy"
        np.lib.format.open_memmap(path, "w+", np.uint8, (1000, 1000))
        assert path.stat().st_blocks * 512 < path.stat().st_size
        allocate("pixels", path)
        assert path.stat().st_blocks * 512 >= path.stat().st_size
        os.truncate(path, 2**43)
        with pytest.raises(DiskFull, match=r"pixels needs [0-9.]+ TB"):
            allocate("pixels", path)


def raise_(error):
    raise error


@pytest.mark.parametrize(
    ("kept", "said"), [(True, "with --resume goes on"), (False, "No epoch was finished")]
)
def test_an_interrupted_run_says_how_it_goes_on(tmp_path, capsys, kept, said):
    if kept:
        (tmp_path / CHECKPOINT).touch()
    with pytest.raises(KeyboardInterrupt), resumable(tmp_path):
        raise KeyboardInterrupt
    assert said in capsys.readouterr().out


def test_a_checkpoint_of_other_data_is_not_resumed(dataset, tmp_path):
    recipe, strategy = RECIPES["digits"], tf.distribute.get_strategy()
    other = build(RECIPES["mlp"], dataset)
    checkpoint.save(tmp_path / CHECKPOINT, recipe, Progress({"loss": [1.0]}), other.variables)
    with pytest.raises(CannotResume, match="other images or classes"):
        fit(build(recipe, dataset), dataset, recipe, strategy, tmp_path, resume=True)

"""<repository>/<model>/.training: what a run keeps while it runs. No model server looks at it.

checkpoint.npz   the state after the last finished epoch (checkpoint.py)
tensorboard/     the curves
split.csv        which of the user's own images are held out; later runs keep to it
skipped.txt      which of them could not be read
images-*/        their pixels, of one process each
"""

import shutil
import tempfile
import time
from pathlib import Path

from training.errors import PublishError

LEFTOVER_AGE_S = 24 * 3600  # no run writes one thing for longer
CHECKPOINT = "checkpoint.npz"
TENSORBOARD = "tensorboard"
SKIPPED = "skipped.txt"
SPLIT = "split.csv"
_IMAGES = "images-"


def open_workspace(model_directory: Path, *, keep: bool) -> Path:
    """The folder, without what an earlier run left unless that is to `keep`.

    Raises PublishError where it cannot be written to, before anything is computed.

    >>> with tempfile.TemporaryDirectory() as repository:
    ...     workspace = open_workspace(Path(repository, "digits"), keep=False)
    ...     workspace.name, images_folder(workspace).is_dir()
    ('.training', True)
    """
    workspace = model_directory / ".training"
    try:
        workspace.mkdir(parents=True, exist_ok=True)
        if not keep:
            shutil.rmtree(workspace / TENSORBOARD, ignore_errors=True)
            for name in (CHECKPOINT, SKIPPED):
                (workspace / name).unlink(missing_ok=True)
    except OSError as error:
        raise PublishError(
            f"cannot write to {workspace}: {error.strerror}; name another "
            f"--model-repository, or see to its permissions"
        ) from error
    for images in workspace.glob(f"{_IMAGES}*"):
        if time.time() - images.stat().st_mtime > LEFTOVER_AGE_S:
            shutil.rmtree(images, ignore_errors=True)
    return workspace


def images_folder(workspace: Path) -> Path:
    """A new one: several machines may share the workspace. `open_workspace` shows it."""
    return Path(tempfile.mkdtemp(prefix=_IMAGES, dir=workspace))


def finish(workspace: Path) -> None:
    """Nothing is left to resume: of a published run, the logs and the split remain."""
    (workspace / CHECKPOINT).unlink()
    for images in workspace.glob(f"{_IMAGES}*"):
        shutil.rmtree(images, ignore_errors=True)

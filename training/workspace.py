"""<repository>/<model>/.training: what a run keeps while it runs. No model server looks at it.

checkpoint.npz   the state after the last finished epoch (checkpoint.py)
tensorboard/     the curves
split.csv        which of the user's own images are held out; later runs keep to it
skipped.txt      which of them could not be read
images-*/        their pixels, of one process each
"""

import contextlib
import fcntl
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from training.errors import DiskFull, Occupied
from training.surroundings.disk import room_for, writable

LEFTOVER_AGE_S = 24 * 3600  # no run writes one thing for longer
CHECKPOINT = "checkpoint.npz"
TENSORBOARD = "tensorboard"
SKIPPED = "skipped.txt"
SPLIT = "split.csv"
_IMAGES = "images-"


def open_workspace(model_directory: Path) -> Path:
    """The folder, which is made where it is not there.

    Raises PublishError where it, or a version beside it, cannot be written, DiskFull.

    >>> with tempfile.TemporaryDirectory() as repository:
    ...     workspace = open_workspace(Path(repository, "digits"))
    ...     workspace.name, images_folder(workspace).is_dir()
    ('.training', True)
    """
    workspace = model_directory / ".training"
    with writable(workspace), room_for("a folder", _existing(workspace)):
        workspace.mkdir(parents=True, exist_ok=True)
        for directory in (workspace, model_directory):
            tempfile.TemporaryFile(dir=directory).close()
    for images in workspace.glob(f"{_IMAGES}*"):
        if time.time() - images.stat().st_mtime > LEFTOVER_AGE_S:
            shutil.rmtree(images, ignore_errors=True)
    return workspace


def _existing(path: Path) -> Path:
    return next(each for each in (path, *path.absolute().parents) if each.is_dir())


@contextlib.contextmanager
def occupied(workspace: Path) -> Iterator[None]:
    """Alone: two runs of one model would write over each other's checkpoint.

    The kernel gives it back, however a run ends; images' pixels go with it. Raises Occupied while
    another has it.

    >>> with (
    ...     tempfile.TemporaryDirectory() as workspace,
    ...     occupied(Path(workspace)),
    ... ):  # doctest: +ELLIPSIS
    ...     with occupied(Path(workspace)):
    ...         pass
    Traceback (most recent call last):
    training.errors.Occupied: another run trains ...
    """
    directory = os.open(workspace, os.O_RDONLY)
    try:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Occupied(
                f"another run trains {workspace.parent.name!r} in {workspace.parent.parent}: wait "
                f"until it has ended, or give this one a name of its own by --name"
            ) from None
        except OSError:  # a file system without locks: as good as it gets
            pass
        try:
            yield
        finally:
            for images in workspace.glob(f"{_IMAGES}*"):
                shutil.rmtree(images, ignore_errors=True)
    finally:
        os.close(directory)


def clear(workspace: Path) -> None:
    """Leave nothing of an earlier run that this one does not go on with.

    >>> with tempfile.TemporaryDirectory() as workspace:
    ...     Path(workspace, CHECKPOINT).touch()
    ...     clear(Path(workspace))
    ...     [*Path(workspace).iterdir()]
    []
    """
    shutil.rmtree(workspace / TENSORBOARD, ignore_errors=True)
    for name in (CHECKPOINT, SKIPPED):
        (workspace / name).unlink(missing_ok=True)


@contextlib.contextmanager
def resumable(workspace: Path) -> Iterator[None]:
    """Say how the run goes on, where it is interrupted or the disk is full.

    >>> with resumable(Path()):
    ...     raise DiskFull("the disk is full")
    Traceback (most recent call last):
    training.errors.DiskFull: the disk is full. No epoch was finished: the same command starts again
    """
    with _noticed_interrupts() as interrupts:
        try:
            yield
        except DiskFull as error:
            raise DiskFull(f"{error}. {_how_to_go_on(workspace)}") from error
        except (KeyboardInterrupt, Exception) as error:
            if not interrupts and isinstance(error, Exception):
                raise
            print(f"\nInterrupted. {_how_to_go_on(workspace)}", flush=True)
            raise KeyboardInterrupt from None


@contextlib.contextmanager
def _noticed_interrupts() -> Iterator[list[int]]:
    """Filled with the signals of Ctrl-C that come: where one comes in the middle of TensorFlow's
    tracing, its C++ goes on without the result, and what is raised is another error (2.21)."""
    come: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    # Python has signals for the main thread alone, and one that is ignored stays so.
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield come
        return
    handle: Callable[[int, FrameType | None], object] = before

    def notice(number: int, frame: FrameType | None) -> None:
        come.append(number)
        handle(number, frame)

    signal.signal(signal.SIGINT, notice)
    try:
        yield come
    finally:
        signal.signal(signal.SIGINT, before)


def _how_to_go_on(workspace: Path) -> str:
    if (workspace / CHECKPOINT).exists():
        return "The same command with --resume goes on after the last finished epoch"
    return "No epoch was finished: the same command starts again"


def images_folder(workspace: Path) -> Path:
    """A new one: several machines may share the workspace. `open_workspace` shows it."""
    return Path(tempfile.mkdtemp(prefix=_IMAGES, dir=workspace))


def finish(workspace: Path) -> None:
    """Nothing is left to resume: of a published run, the logs and the split remain."""
    (workspace / CHECKPOINT).unlink(missing_ok=True)

"""<repository>/<model>/<N>/ appears whole or not at all, whoever else publishes or is killed."""

import contextlib
import errno
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sluice.wire.durable import sync, sync_tree
from sluice.wire.signing import SigningKey
from sluice.wire.versions import find_versions, withdrawn_versions
from training.surroundings.disk import room_for, writable
from training.workspace import LEFTOVER_AGE_S

_STAGING = ".publishing-"  # no integer, so no model server takes it for a version


def publish_directory(
    model_directory: Path,
    write: Callable[[Path], None],
    needed: int = 0,
    key: SigningKey | None = None,
) -> Path:
    """Run `write` on a new hidden directory beside the versions; it becomes the next version.

    needed: bytes, about; 0 where nobody knows. key: signs it, as what it becomes.
    Where `write` raises, nothing is left behind, and of what was to be a model's first version not
    even the model's directory.
    Raises DiskFull, PublishError where the repository cannot be written.

    >>> with tempfile.TemporaryDirectory() as repository:
    ...     write = lambda directory: None
    ...     [publish_directory(Path(repository, "digits"), write).name for _ in range(2)]
    ['1', '2']
    """
    try:
        with writable(model_directory):
            model_directory.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(model_directory)
        with room_for("a version", model_directory, needed):
            return _publish(model_directory, write, key)
    finally:
        with contextlib.suppress(OSError):  # it is not empty, as a rule
            model_directory.rmdir()


def _publish(model_directory: Path, write: Callable[[Path], None], key: SigningKey | None) -> Path:
    with writable(model_directory):
        staging = _staging(model_directory)
    try:
        staging.chmod(0o755)  # mkdtemp's is 0700, and the server may be another user
        write(staging)
        sync_tree(staging)
        published = _rename_to_next(staging, model_directory, key)
        sync(published)  # the name of the signature, which is made last
        sync(model_directory)
        return published
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _staging(model_directory: Path) -> Path:
    while True:
        model_directory.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # another that was refused has removed it
            return Path(tempfile.mkdtemp(prefix=_STAGING, dir=model_directory))


def _rename_to_next(staging: Path, model_directory: Path, key: SigningKey | None) -> Path:
    """Renaming to a name that a quicker publisher has just filled fails, so the next is tried;
    signed anew, as the number is in what is signed."""
    taken = [*find_versions(model_directory), *withdrawn_versions(model_directory)]
    version = max([0, *taken]) + 1
    while True:
        published = model_directory / str(version)
        if key:
            key.sign(staging, model_directory.name, version)
        try:
            staging.rename(published)
            return published
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
            version += 1


def _remove_leftovers(model_directory: Path) -> None:
    """What publishers killed long ago left."""
    for entry in model_directory.glob(f"{_STAGING}*"):
        with contextlib.suppress(FileNotFoundError):  # another publisher was quicker
            if time.time() - entry.stat().st_mtime > LEFTOVER_AGE_S:
                shutil.rmtree(entry, ignore_errors=True)

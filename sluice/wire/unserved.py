"""Why something in a model repository is not served, as far as its files show, and what to do.

Here, and not with the model server, as whoever trains, lists or starts one asks before it does.
"""

import re
import shlex
from pathlib import Path

from sluice.wire.versions import SAVED_MODEL, find_versions

KERAS_FILES = (".keras", ".h5", ".hdf5")
_NEARLY_A_VERSION = re.compile(r"[A-Za-z_-]*[0-9]+", re.ASCII)  # v2, version-2


def find_unserved(repository: Path) -> dict[str, str]:
    """What looks like a model and has no version with a SavedModel, by name, with the reason.

    {} where there is no repository yet; raises OSError where it cannot be listed.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as repository:
    ...     for version in ("digits/1", "photos/v2"):
    ...         Path(repository, version).mkdir(parents=True)
    ...     _ = Path(repository, "digits/1/saved_model.pb").write_bytes(b"...")
    ...     reasons = find_unserved(Path(repository))
    >>> list(reasons), reasons["photos"].partition(":")[0]
    (['photos'], 'it has no version, which is a folder named by a number')
    """
    found = {}
    for entry in sorted(repository.iterdir()) if repository.is_dir() else []:
        if entry.name.startswith("."):
            continue
        beside = _keras_file([entry], entry.with_suffix(""))
        reason = _why_not(entry) if entry.is_dir() else beside
        if reason:
            found[entry.name] = reason
    return found


def not_a_saved_model(version: Path) -> str:
    """Why a version directory holds no SavedModel; "" where it does, whole or not.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as version:
    ...     not_a_saved_model(Path(version)).partition(":")[0]
    'the folder is empty'
    """
    try:
        files = sorted(version.iterdir())
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    if any(file.name in (SAVED_MODEL, "saved_model.pbtxt") for file in files):
        return ""
    if not files:
        return f"the folder is empty: copy a SavedModel into it, {SAVED_MODEL} last"
    return _keras_file(files, version.parent) or (
        f"{SAVED_MODEL} is missing: where it is still being copied it is taken up once that is "
        "there, else export or copy it again"
    )


def _why_not(directory: Path) -> str:
    """ "" where there is a version with a SavedModel."""
    try:
        versions = find_versions(directory)
        entries = sorted(directory.iterdir())
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    reasons = {number: not_a_saved_model(path) for number, path in versions.items()}
    if reasons:
        newest = max(reasons)
        return f"version {newest}: {reasons[newest]}" if all(reasons.values()) else ""
    return _without_version(directory, entries)


def _without_version(directory: Path, entries: list[Path]) -> str:
    none = "it has no version, which is a folder named by a number"
    if (directory / SAVED_MODEL).exists():
        moved = f"(cd {_quoted(directory)} && mkdir .1 && mv * .1 && mv .1 1)"
        return f"{none}: its SavedModel lies one folder too high; {moved}"
    for entry in entries:
        if (entry / SAVED_MODEL).exists() or _NEARLY_A_VERSION.fullmatch(entry.name):
            number = re.sub(r"[^0-9]", "", entry.name)[:18] or "1"
            return f"{none}: mv {_quoted(entry)} {_quoted(directory / number)}"
    return _keras_file(entries, directory) or (
        f"{none}: copy a SavedModel to {_quoted(directory / '1')}, {SAVED_MODEL} last"
    )


def _keras_file(files: list[Path], model: Path) -> str:
    """What to do with a file of Keras' own format; "" where there is none."""
    for file in files:
        if file.name.endswith(KERAS_FILES) and file.is_file():
            repository = _quoted(model.parent.absolute())
            return (
                f"{file.name} is a Keras file and no SavedModel: sluice publish "
                f"{_quoted(file.absolute())} --name {shlex.quote(model.name)} "
                f"--model-repository {repository}"
            )
    return ""


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))

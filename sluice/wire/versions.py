"""What models and versions are on disk: asked here by all who read or write a model repository.

A version is a directory `<repository>/<model>/<N>` whose name TensorFlow Serving reads as a 64-bit
integer: `7` and `007` are both version 7, `1.tmp` and `v2` are not versions. What is in it does not
matter to TensorFlow Serving, which tries to load it and reports what is missing; whoever lists what
was *published* asks for the SavedModel as well.
"""

import re
from pathlib import Path

SAVED_MODEL = "saved_model.pb"  # written last, so a version that has it is whole
_NUMBER = re.compile(r"-?[0-9]{1,19}", re.ASCII)
_LONGEST_NAME = 255  # bytes, of a directory
_INT64 = range(-(2**63), 2**63)


def version_number(name: str) -> int | None:
    """The version that a directory of this name holds, or None where it holds none.

    >>> version_number("007"), version_number("1.tmp")
    (7, None)
    """
    if not _NUMBER.fullmatch(name):
        return None
    number = int(name)
    return number if number in _INT64 else None


def find_versions(model_directory: Path) -> dict[int, Path]:
    """The version directories by number, oldest first. Raises OSError where it cannot be listed.

    Of `7` and `007` the first by name counts, as the same number cannot be served twice.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as model:
    ...     for name in ("10", "9", "samples"):
    ...         Path(model, name).mkdir()
    ...     list(find_versions(Path(model)))
    [9, 10]
    """
    found: dict[int, Path] = {}
    for entry in sorted(model_directory.iterdir(), reverse=True):
        number = version_number(entry.name)
        if number is not None and entry.is_dir():
            found[number] = entry
    return dict(sorted(found.items()))


def model_directories(repository: Path) -> dict[str, Path]:
    """The directories that hold at least one version, by name, sorted.

    Hidden ones do not count, nor does what cannot be listed: the `lost+found` of a volume is root's
    alone, and a directory may be taken away meanwhile. Raises OSError where the repository itself
    cannot be listed.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as repository:
    ...     for name in ("digits/1", ".digits.new/1", "photos/draft"):
    ...         Path(repository, name).mkdir(parents=True)
    ...     list(model_directories(Path(repository)))
    ['digits']
    """
    return {
        entry.name: entry
        for entry in sorted(repository.iterdir())
        if not entry.name.startswith(".") and _has_versions(entry)
    }


def published_versions(model_directory: Path) -> dict[int, Path]:
    """Those that hold a SavedModel, oldest first; {} where there is no such model.

    >>> published_versions(Path("no such model"))
    {}
    """
    if not model_directory.is_dir():
        return {}
    return {
        number: path
        for number, path in find_versions(model_directory).items()
        if (path / SAVED_MODEL).exists()
    }


def model_name_fault(name: str) -> str:
    """What is wrong with a model's name, in words; "" where nothing is.

    A name is one directory in a repository and one part of an address (`/v1/models/NAME:predict`).

    >>> model_name_fault("pets"), model_name_fault("../pets")
    ('', 'expected no / in it')
    """
    if not name:
        return "expected at least a letter"
    if found := [mark for mark in "/\\:" if mark in name]:
        return f"expected no {' and no '.join(found)} in it"
    if name.startswith("."):
        return "expected no dot at its beginning, as a hidden directory has"
    if name != name.strip() or not name.isprintable():
        return "expected printable characters alone, and no space at its beginning or end"
    if len(name.encode()) > _LONGEST_NAME:
        return f"expected {_LONGEST_NAME} bytes at most, not {len(name.encode())}"
    return ""


def _has_versions(directory: Path) -> bool:
    try:
        return bool(find_versions(directory))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return False

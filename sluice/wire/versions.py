"""What models and versions are on disk: asked here by all who read or write a model repository.

A version is a directory `<repository>/<model>/<N>` whose name TensorFlow Serving reads as a 64-bit
integer: `7` and `007` are both version 7, `1.tmp` and `v2` are not versions. What is in it does not
matter to TensorFlow Serving, which tries to load it and reports what is missing; whoever lists what
was *published* asks for the SavedModel as well. Why a directory is not what it was meant to be, and
what to do, is said here too.
"""

import contextlib
import re
import shlex
from pathlib import Path

SAVED_MODEL = "saved_model.pb"  # written last, so a version that has it is whole
_SAVED_MODELS = (SAVED_MODEL, "saved_model.pbtxt", "saved_model.cpb")  # what TensorFlow reads
_KERAS = (".keras", ".h5", ".hdf5")
_NUMBER = re.compile(r"-?[0-9]{1,19}", re.ASCII)
_LONGEST_NAME = 255  # bytes, of a directory
_WITHDRAWN = ".withdrawn-"  # hidden, and no number: no model server finds it
_INT64 = range(-(2**63), 2**63)
# No message holds such a name.
_NO_UTF8 = "its name is no UTF-8, so nobody can ask for it: give it another"


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


def withdrawn_name(version: int) -> str:
    """What a version's directory is called while no server is to find it.

    >>> withdrawn_name(4)
    '.withdrawn-4'
    """
    return f"{_WITHDRAWN}{version}"


def number_of(version: Path) -> int | None:
    """The number of a version's directory, served or withdrawn; None where it is neither.

    >>> number_of(Path("digits/4")), number_of(Path("digits/.withdrawn-4"))
    (4, 4)
    """
    return version_number(version.name.removeprefix(_WITHDRAWN))


def withdrawn_versions(model_directory: Path) -> dict[int, Path]:
    """Those that were taken out of service, by number, oldest first.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as model:
    ...     Path(model, withdrawn_name(4)).mkdir()
    ...     list(withdrawn_versions(Path(model)))
    [4]
    """
    found = {
        number: entry
        for entry in model_directory.glob(f"{_WITHDRAWN}*")
        if (number := number_of(entry)) is not None
    }
    return dict(sorted(found.items()))


def model_directories(repository: Path) -> dict[str, Path]:
    """The directories that hold at least one version, by name, sorted: whatever the name, which
    `survey` holds to what can be asked for.

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
    found = {}
    for entry in _not_hidden(repository):
        with contextlib.suppress(OSError):
            if find_versions(entry):
                found[entry.name] = entry
    return found


def survey(repository: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """The model directories by name, and why what else looks like one is none, and what to do.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as repository:
    ...     Path(repository, "digits").mkdir()
    ...     survey(Path(repository))
    ({}, {'digits': 'it is empty; a version is a directory in it whose name is a whole number'})
    """
    models: dict[str, Path] = {}
    others: dict[str, str] = {}
    for entry in _not_hidden(repository):
        name = entry.name.encode(errors="backslashreplace").decode()  # as it can be told
        try:
            versions = find_versions(entry)
            if versions and name == entry.name:
                models[name] = entry
            elif reason := _NO_UTF8 if versions else why_no_model(entry):
                others[name] = reason
        except NotADirectoryError:
            if reason := _misplaced_file(entry):
                others[name] = reason
        except FileNotFoundError:  # taken away since it was listed
            continue
        except OSError as error:
            others[name] = f"it cannot be listed: {error.strerror}"
    return models, others


def why_no_model(directory: Path) -> str | None:
    """Why a directory holds no version, and what to do. Raises OSError where it cannot be listed.

    None where there is nothing to say yet: what is in it is hidden, as while it is written.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as model:
    ...     why_no_model(Path(model))
    'it is empty; a version is a directory in it whose name is a whole number'
    """
    seen = _not_hidden(directory)
    if not seen and not any(directory.iterdir()):
        return "it is empty; a version is a directory in it whose name is a whole number"
    if _holds_saved_model(directory):
        if version_number(directory.name) is not None:
            return (
                f"it is a version itself: the model is {directory.parent}, and a repository is "
                "what models lie in"
            )
        first = directory / "1"
        return (
            f"its SavedModel lies in {directory} itself, not in a version's directory: "
            f"make {first} and move everything there"
        )
    for entry in seen:
        if entry.is_dir() and _holds_saved_model(entry):
            number = re.search("[0-9]+", entry.name)
            return (
                f'"{entry.name}" is no version, whose name is a whole number: '
                f"mv {_quoted(entry)} {_quoted(directory / (number[0] if number else '1'))}"
            )
    for entry in seen:
        if entry.suffix in _KERAS:
            return _is_keras_file(entry, directory / "1")
        if version_number(entry.name) is not None:
            what = "a link that leads nowhere" if entry.is_symlink() else "no directory"
            return f"{entry} is {what}, and so no version"
    return "no directory in it is a version, whose name is a whole number" if seen else None


def why_no_saved_model(version: Path) -> str | None:
    """Why a version's directory holds no SavedModel, and what to do; None where it holds one.

    Raises OSError where it cannot be listed.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as version:
    ...     Path(version, SAVED_MODEL).write_bytes(b"something")
    ...     why_no_saved_model(Path(version))
    9
    """
    entries = sorted(version.iterdir())
    for entry in entries:
        if entry.name in _SAVED_MODELS:
            if entry.stat().st_size:
                return None
            return f"{entry} is empty, as after a copy that was cut short: copy the version again"
    if not entries:
        return f"{version} is empty: copy a SavedModel into it, or remove it"
    for entry in entries:
        if entry.suffix in _KERAS:
            return _is_keras_file(entry, version)
        if entry.is_dir() and _holds_saved_model(entry):
            return f"the SavedModel of {version} lies in {entry}: move what is in there one up"
    return f"{version} holds no {SAVED_MODEL}: is it copied whole?"


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


def _not_hidden(directory: Path) -> list[Path]:
    return [entry for entry in sorted(directory.iterdir()) if not entry.name.startswith(".")]


def _holds_saved_model(directory: Path) -> bool:
    return any((directory / name).is_file() for name in _SAVED_MODELS)


def _misplaced_file(file: Path) -> str | None:
    """What to do with a file that lies among the models; None for one that means nothing."""
    if file.name in _SAVED_MODELS:
        return f"a SavedModel lies in a directory MODEL/1: make one in {file.parent} and move it"
    if file.suffix in _KERAS:
        return _is_keras_file(file, file.with_suffix("") / "1")
    return None


def _is_keras_file(file: Path, version: Path) -> str:
    if file.name.endswith(".weights.h5"):
        return (
            f"{file} holds a Keras model's weights alone: build the model in Python, load them "
            f'with model.load_weights, and model.export("{version}")'
        )
    return (
        f"{file} is a Keras file, not a SavedModel; publish it: sluice publish {_quoted(file)} "
        f"--name {_quoted(version.parent.name)} --model-repository {_quoted(version.parent.parent)}"
    )


def _quoted(path: Path | str) -> str:
    """For a shell."""
    return shlex.quote(str(path))

"""A user's file that cannot be read, in a sentence, whatever the library that reads it raises."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError

from training.adopting.reading_hdf5 import HOSTILE
from training.errors import CannotAdopt, TrainingError

# h5py, zipfile, NumPy, protobuf and TensorFlow have no error in common for bytes that are not what
# they were: a length that is wrong comes up as whatever is tried with it.
_DAMAGED = (
    ArithmeticError,
    AttributeError,
    DecodeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    tf.errors.OpError,
    zipfile.BadZipFile,
    zlib.error,
)
_COLOURS = re.compile(r"\x1b\[\d*m")
_SHOWN = 200  # characters of what the library says
_READER = Path(__file__).with_name("reading_hdf5.py")
_SECONDS = 10  # of computing, to read an HDF5 file; and one more for each
_BYTES_A_SECOND = 20_000_000


@contextlib.contextmanager
def reading(path: Path, failure: type[TrainingError] = CannotAdopt) -> Iterator[None]:
    """Within, `path` is read by a library: what that raises becomes a `failure`.

    >>> with reading(Path("pets.keras")):
    ...     raise zipfile.BadZipFile("File is not a zip file")
    Traceback (most recent call last):
    training.errors.CannotAdopt: pets.keras is damaged or cut short (File is not a zip file): copy \
it again
    """
    try:
        yield
    except TrainingError:
        raise
    except _DAMAGED as error:
        raise failure(_in_words(path, error)) from error


def check_hdf5(path: Path) -> None:
    """Whether all of an HDF5 file, or of those in a `.keras` archive, can be read, tried by another
    process (reading_hdf5.py says why). Raises CannotAdopt.

    >>> check_hdf5(Path(os.devnull))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    training.errors.CannotAdopt: /dev/null is damaged or cut short (OSError: ...): copy it again
    """
    seconds = _SECONDS + path.stat().st_size // _BYTES_A_SECOND
    command = [sys.executable, "-P", str(_READER), str(path), str(seconds)]
    reader = subprocess.run(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, errors="replace", check=False
    )
    if reader.returncode:
        said = reader.stderr.strip().rpartition("\n")[2][:_SHOWN]
        if reader.returncode == HOSTILE:
            raise CannotAdopt(f"{path} {said}")
        if reader.returncode < 0:
            said = f"reading it ends in {signal.Signals(-reader.returncode).name}"
        if reader.returncode == -signal.SIGXCPU:
            said = f"reading it had not ended after {seconds} s of computing"
        raise CannotAdopt(_damaged(path, said))


def first_line(error: BaseException) -> str:
    """What it says, short, in one line.

    >>> first_line(ValueError("no such\\n  thing")), first_line(KeyError())
    ('no such thing', 'KeyError')
    """
    text = _COLOURS.sub("", str(error))
    # Keras says first that it could not infer a shape, and then why.
    text = text.partition("Error encountered:")[2] or text
    return " ".join(text.split())[:_SHOWN].strip() or type(error).__name__


def _in_words(path: Path, error: BaseException) -> str:
    # The system's own refusals have a number; h5py raises OSError for bytes that it dislikes.
    if isinstance(error, OSError) and error.errno and error.strerror == os.strerror(error.errno):
        return f"{error.filename or path} cannot be read: {error.strerror}"
    return _damaged(path, first_line(error))


def _damaged(path: Path, why: str) -> str:
    return f"{path} is damaged or cut short ({why}): copy it again"

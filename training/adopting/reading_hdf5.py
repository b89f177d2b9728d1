"""All of a stranger's HDF5 file, read once in a process of its own.

    python reading_hdf5.py FILE SECONDS

libhdf5 follows the addresses that stand in a file. In a damaged one they may lead in a circle, or
to where nothing is: then it computes for ever, and no Python code runs to stop it, or it ends the
process. Of a `.keras` archive, the HDF5 files in it are read.

What is whole and was made to do harm it refuses with the status HOSTILE: numbers that lie in
another file of this machine, and a few bytes that would be more numbers than memory holds.
"""

import contextlib
import io
import resource
import sys
import zipfile
from pathlib import Path

import h5py

HOSTILE = 3  # the exit status
_ANYWAY = 1_000_000_000  # bytes that any file may become
_TIMES = 100  # its size, that a larger one may: Keras packs no numbers


class Hostile(Exception):
    """The message goes on after the file's name."""


def check_size(unpacked: int, stored: int) -> None:
    """Raises Hostile where so few bytes are to become so many.

    >>> check_size(10**13, 1000)
    Traceback (most recent call last):
    training.adopting.reading_hdf5.Hostile: would be 10,000,000,000,000 bytes in memory, of 1,000 \
in the file: save the model again with model.save()
    """
    if unpacked > max(_ANYWAY, _TIMES * stored):
        raise Hostile(
            f"would be {unpacked:,} bytes in memory, of {stored:,} in the file: save the model "
            f"again with model.save()"
        )


def read(path: str) -> None:
    """Every attribute and every number in it. Raises Hostile, and what h5py and zipfile do."""
    if not zipfile.is_zipfile(path):
        _read_file(path, Path(path).stat().st_size)
        return
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.filename.endswith(".h5"):
                _read_file(io.BytesIO(archive.read(info)), info.file_size)


def _read_file(file: str | io.BytesIO, size: int) -> None:
    with h5py.File(file) as stored:
        objects = [stored]
        stored.visititems(lambda _name, found: objects.append(found))
        for each in objects:
            _check_alone(each)
        datasets = [each for each in objects if isinstance(each, h5py.Dataset)]
        unpacked = sum(each.nbytes for each in datasets)
        check_size(unpacked, size)
        _limit_memory(size + unpacked)
        for each in objects:
            dict(each.attrs)
        for each in datasets:
            each[()]


def _check_alone(found: h5py.Group | h5py.Dataset) -> None:
    """Raises Hostile for what lies in another file."""
    if isinstance(found, h5py.Dataset):
        elsewhere = [file for file, *_ in found.external or []]
        elsewhere += (
            [file for _, file, *_ in found.virtual_sources() if file != "."]
            if (found.is_virtual)
            else []
        )
    else:
        links = (found.get(name, getlink=True) for name in found)
        elsewhere = [each.filename for each in links if isinstance(each, h5py.ExternalLink)]
    if elsewhere:
        raise Hostile(
            f"takes numbers from another file of this machine ({elsewhere[0]}): save the model "
            f"again with model.save()"
        )


def _limit_memory(size: int) -> None:
    """Words take no more in the file than an address, which may be the same a million times."""
    with contextlib.suppress(FileNotFoundError):  # a system without it
        pages = int(Path("/proc/self/statm").read_text().split()[5])  # of data
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        allowed = pages * resource.getpagesize() + _ANYWAY + 2 * size
        resource.setrlimit(resource.RLIMIT_DATA, (_least(allowed, most), most))


def _limit(seconds: int) -> None:
    """Of computing; the time that a slow disk takes is not counted."""
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (_least(seconds, most), most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _least(wanted: int, most: int) -> int:
    return wanted if most == resource.RLIM_INFINITY else min(wanted, most)


if __name__ == "__main__":
    _limit(int(sys.argv[2]))
    try:
        read(sys.argv[1])
    except Hostile as error:
        print(error, file=sys.stderr)
        sys.exit(HOSTILE)

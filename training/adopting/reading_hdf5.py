"""All of a stranger's HDF5 file, read once in a process of its own.

    python reading_hdf5.py FILE SECONDS

libhdf5 follows the addresses that stand in a file. In a damaged one they may lead in a circle, or
to where nothing is: then it computes for ever, and no Python code runs to stop it, or it ends the
process. Of a `.keras` archive, the HDF5 files in it are read.
"""

import io
import resource
import sys
import zipfile

import h5py


def read(path: str) -> None:
    """Every attribute and every number in it. Raises what h5py and zipfile do."""
    if not zipfile.is_zipfile(path):
        _read_file(path)
        return
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".h5"):
                _read_file(io.BytesIO(archive.read(name)))


def _read_file(file: str | io.BytesIO) -> None:
    with h5py.File(file) as stored:
        _read_object("", stored)
        stored.visititems(_read_object)


def _read_object(_name: str, found: h5py.Group | h5py.Dataset) -> None:
    dict(found.attrs)
    if isinstance(found, h5py.Dataset):
        found[()]


def _limit(seconds: int) -> None:
    """Of computing; the time that a slow disk takes is not counted."""
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    allowed = seconds if most == resource.RLIM_INFINITY else min(seconds, most)
    resource.setrlimit(resource.RLIMIT_CPU, (allowed, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    _limit(int(sys.argv[2]))
    read(sys.argv[1])

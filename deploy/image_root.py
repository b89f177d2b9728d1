"""Makes the root of an image that holds a virtual environment and what its processes open: no
shell, no package manager, no certificates.

    python3 image_root.py ENVIRONMENT ROOT
"""

import compileall
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

# Names of hosts are looked up by these; the C library knows no other file that matters here.
SYSTEM_FILES = [Path("/etc/ld.so.cache"), Path("/etc/nsswitch.conf")]
# Parts of the standard library for writing programs rather than running them, and others' packages.
UNUSED = shutil.ignore_patterns(
    "__pycache__",
    "config-*",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "test",
    "tkinter",
    "turtledemo",
)


def main(environment: Path, root: Path) -> None:
    stdlib = Path(sysconfig.get_path("stdlib"))
    interpreter = environment.joinpath("bin/python3").readlink()
    shutil.copytree(environment, below(root, environment), symlinks=True)
    shutil.copytree(stdlib, below(root, stdlib), symlinks=True, ignore=UNUSED)
    binaries = [interpreter, *environment.rglob("*.so*"), *stdlib.rglob("*.so")]
    for file in [interpreter, interpreter.resolve(), *SYSTEM_FILES, *libraries(binaries)]:
        if not file.is_relative_to(environment):  # that is there already
            shutil.copy2(file, below(root, file), follow_symlinks=file != interpreter)
    below(root, Path("/tmp")).mkdir()
    below(root, Path("/tmp")).chmod(0o1777)
    # Compiled here, since the process that runs it may write nowhere.
    if not compileall.compile_dir(below(root, stdlib), quiet=1, stripdir=str(root)):
        sys.exit("a module of the standard library does not compile")


def below(root: Path, path: Path) -> Path:
    """`path` as it is found under `root`, with a folder to lie in."""
    moved = root / path.relative_to("/")
    moved.parent.mkdir(parents=True, exist_ok=True)
    return moved


def libraries(binaries: list[Path]) -> list[Path]:
    """What the dynamic linker loads for them, itself included."""
    lines = subprocess.run(["ldd", *binaries], check=True, capture_output=True, text=True).stdout
    return [Path(path) for path in set(re.findall(r"^\t(?:\S+ => )?(/\S+)", lines, re.M))]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

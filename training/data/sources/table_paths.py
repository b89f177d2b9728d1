"""The path that a table names -> the file, also where another system wrote the table."""

import unicodedata
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit


def find_file(written: str, folder: Path) -> Path:
    r"""The first reading of `written`, relative to `folder`, under which there is a file; the
    first of all where there is none under any.

    >>> find_file("photos\\red\\1.png", Path("data")).as_posix()
    'data/photos\\red\\1.png'
    """
    readings = [folder / each for each in _readings(written)]
    return next((path for path in readings if _is_file(path)), readings[0])


def _readings(written: str) -> Iterator[Path]:
    """As it is; as an address; with Windows' separators; each as macOS writes its letters too."""
    for text in (written, _of_address(written), written.replace("\\", "/")):
        for form in ("NFC", "NFD"):
            yield Path(text)
            yield Path(unicodedata.normalize(form, text))


def _of_address(written: str) -> str:
    return unquote(urlsplit(written).path) if written.startswith("file:") else written


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, a NUL in it
        return False

"""What tests measure, between two marks of a page in docs/; `--write-docs` writes it anew."""

import os
from datetime import date
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def written(document: str, test: str) -> str:
    """What the page has from that test: `<!-- test: begin -->` to `<!-- test: end -->`."""
    return _parts(document, test)[1]


def write(document: str, test: str, text: str) -> None:
    before, _, behind = _parts(document, test)
    begin, end = _marks(test)
    (DOCS / document).write_text(f"{before}{begin}\n{text}\n{end}{behind}")


def _parts(document: str, test: str) -> tuple[str, str, str]:
    """What stands before, between and behind the marks. Raises ValueError where they do not."""
    begin, end = _marks(test)
    before, rest = (DOCS / document).read_text().split(begin)
    between, behind = rest.split(end)
    return before, between, behind


def machine() -> str:
    """The day, and how busy the machine is."""
    return f"{date.today()}, {os.cpu_count()} CPUs under a load of {os.getloadavg()[1]:.0f}"


def _marks(test: str) -> tuple[str, str]:
    return f"<!-- {test}: begin -->", f"<!-- {test}: end -->"

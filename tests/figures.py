"""What tests measure, between two marks of a page in docs/; `--write-docs` writes it anew."""

import os
from datetime import date
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def written(document: str, test: str) -> str:
    """What the page has from that test: `<!-- test: begin -->` to `<!-- test: end -->`."""
    return (DOCS / document).read_text().split(_mark(test, "begin"))[1].split(_mark(test, "end"))[0]


def write(document: str, test: str, text: str) -> None:
    page = (DOCS / document).read_text()
    (DOCS / document).write_text(page.replace(written(document, test), f"\n{text}\n"))


def machine() -> str:
    """The day, and how busy the machine is."""
    return f"{date.today()}, {os.cpu_count()} CPUs under a load of {os.getloadavg()[1]:.0f}"


def _mark(test: str, end: str) -> str:
    return f"<!-- {test}: {end} -->"

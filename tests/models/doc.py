"""docs/models.md, and what its tables say."""

import re
from pathlib import Path

DOC = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
ARCHITECTURE = DOC.split("\n## Results")[0]


def section(heading: str) -> str:
    return re.split(r"\n## ", ARCHITECTURE.split(f"\n## {heading}\n")[1])[0]


def rows(heading: str) -> list[list[str]]:
    cells = [
        line.strip("|").split("|") for line in section(heading).splitlines() if line[:1] == "|"
    ]
    return [[cell.strip() for cell in row] for row in cells if row[0].strip().startswith("`")]


def names(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)

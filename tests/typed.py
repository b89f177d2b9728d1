"""What the docs tell a newcomer to type, typed."""

import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def blocks(document: str, language: str = "sh", section: str = "") -> list[str]:
    """The blocks of code in a document of the checkout, or under one of its headings."""
    text = (ROOT / document).read_text()
    if section:
        text = re.split(rf"^## {re.escape(section)}$", text, flags=re.MULTILINE)[1]
        text = re.split(r"^## ", text, flags=re.MULTILINE)[0]
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def type_in(
    command: str, directory: Path, programs: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """In a shell of a fresh account; `programs`: a folder that its PATH begins with."""
    environment = newcomers(directory)
    if programs:
        environment["PATH"] = f"{programs}:{environment['PATH']}"
    return subprocess.run(
        ["bash", "-c", command],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def newcomers(directory: Path) -> dict[str, str]:
    """What the shell of a fresh account has: a home with nothing in it, and where programs are."""
    home = directory / "home"
    home.mkdir(exist_ok=True)
    return {"HOME": str(home), "PATH": os.environ["PATH"]}

"""docs/models.md says what is so: its code runs, its messages are Keras's, its sizes ours."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest

import models

DOC = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
ARCHITECTURE = DOC.split("\n## Results")[0]
BLOCK = re.compile(r"^```(python|python raises|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def section(heading: str) -> str:
    return re.split(r"\n## ", ARCHITECTURE.split(f"\n## {heading}\n")[1])[0]


def rows(heading: str) -> list[list[str]]:
    cells = [
        line.strip("|").split("|") for line in section(heading).splitlines() if line[:1] == "|"
    ]
    return [[cell.strip() for cell in row] for row in cells if row[0].strip().startswith("`")]


def names(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def test_the_code_runs_and_the_quoted_message_is_the_real_one() -> None:
    keras.utils.clear_session()
    scope: dict[str, Any] = {}
    message = ""
    for kind, block in BLOCK.findall(ARCHITECTURE):
        if kind == "text":
            assert block.strip() == message
        elif kind == "python raises":
            with pytest.raises(ValueError) as raised:
                exec(block, scope)
            message = f"ValueError: {raised.value}"
        else:
            exec(block, scope)
    assert message


def test_families_lists_every_model_with_its_size_inputs_and_heads(
    full_size: Callable[[str], keras.Model],
) -> None:
    stated = {names(row[0])[0]: row[1:3] for row in rows("Families")}
    assert set(stated) == set(models.MODELS)
    for name, (count, signatures) in stated.items():
        model = full_size(name)
        assert count == f"{model.count_params():,}"
        assert signatures == "; ".join(
            f"{', '.join(tensor.name for tensor in part.inputs)} → {', '.join(models.heads(part))}"
            for part in models.parts(model).values()
        )


def test_small_lists_every_argument() -> None:
    stated = {name: row[1] for row in rows("Small") for name in names(row[0])}
    assert set(stated) == set(models.MODELS)
    for name, arguments in stated.items():
        known = set(models.sizes(name)) - {"input_shape", "classes"}
        assert known <= set(names(arguments)), name

"""docs/models.md says what is so: its code runs, its messages are Keras's. Its table of families
is held in test_families.py, where the networks are built."""

import re
from typing import Any

import keras
import pytest

import models
from tests.models.doc import ARCHITECTURE, names, rows

BLOCK = re.compile(r"^```(python|python raises|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


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


def test_small_lists_every_argument() -> None:
    stated = {name: row[1] for row in rows("Small") for name in names(row[0])}
    assert set(stated) == set(models.MODELS)
    for name, arguments in stated.items():
        known = set(models.sizes(name)) - {"input_shape", "classes"}
        assert known <= set(names(arguments)), name

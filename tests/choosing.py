"""Which files of tests `-m` can choose from: the others need not be imported."""

import functools
import itertools
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
COLLECTED = pytest.StashKey[list[pytest.Item]]()  # all tests of a run, before -m has chosen
# The marks of suites: tests/test_choosing.py holds that each is named where a test has it.
SUITES = {"slow", "load", "clients", "root", "containers"}


def can_choose(expression: str, file: Path) -> bool:
    """Whether `-m expression` may choose a test of this file, whose marks of SUITES are those that
    the file or a conftest.py above it names, as `mark.slow`. Where anything else is asked for, it
    may."""
    asked = {*re.findall(r"\w+", expression)} - {"and", "or", "not"}
    if not asked <= SUITES:
        return True
    named = asked & marks_named(file)
    counts = range(len(named) + 1)
    sets = itertools.chain.from_iterable(itertools.combinations(named, each) for each in counts)
    try:
        return any(eval(expression, {name: name in marks for name in asked}) for marks in sets)
    except (SyntaxError, TypeError):
        return True  # pytest says what is wrong with it


def marks_named(file: Path) -> set[str]:
    """In the file, and in each conftest.py above it."""
    folders = [each for each in file.parents if each.is_relative_to(TESTS)]
    return _marks_in(file).union(*(_marks_in(each / "conftest.py") for each in folders))


@functools.cache
def _marks_in(file: Path) -> set[str]:
    return {*re.findall(r"\bmark\.(\w+)", file.read_text())} if file.exists() else set()

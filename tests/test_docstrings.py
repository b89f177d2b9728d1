"""The examples in docstrings: each runs, and what people call carries one."""

import doctest
import importlib
import inspect
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WITH_EXAMPLES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in ("sluice", "models", "training")
    for path in sorted((ROOT / package).rglob("*.py"))
    if ">>> " in path.read_text()
]

# Modules whose every public function and class carries an example.
WIRE = [
    "large_tensors",
    "model_config",
    "model_ref",
    "oip_tensors",
    "signature",
    "tensors",
    "varint",
    "versions",
]
# Others that people call, by their dotted names.
CALLED = [
    "sluice.client.results.Prediction",
    "sluice.wire.health.HealthService",
    "sluice.wire.reflection.answer",
    "models.build",
    "training.train",
    "training.build.build",
]


def examples_in(thing, name):
    """The docstrings with examples of a module, a class or a function."""
    return [each for each in doctest.DocTestFinder().find(thing, name) if each.examples]


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_print_what_they_say(module):
    found = examples_in(importlib.import_module(module), module)
    assert found, "its >>> stand where no docstring is"
    report = []
    runner = doctest.DocTestRunner()
    for each in found:
        runner.run(each, out=report.append)
    assert not report, "".join(report)


@pytest.mark.parametrize("name", CALLED)
def test_what_people_call_carries_an_example(name):
    module, _, thing = name.rpartition(".")
    assert examples_in(getattr(importlib.import_module(module), thing), name)


@pytest.mark.parametrize("name", WIRE)
def test_what_the_wire_offers_carries_an_example(name):
    module = importlib.import_module(f"sluice.wire.{name}")
    offered = {
        each: thing
        for each, thing in vars(module).items()
        if getattr(thing, "__module__", "") == module.__name__ and not each.startswith("_")
        if inspect.isfunction(thing)
        or (inspect.isclass(thing) and not issubclass(thing, Exception))
    }
    assert offered
    assert [each for each, thing in offered.items() if not examples_in(thing, each)] == []


def test_what_builds_a_model_carries_an_example():
    builders = importlib.import_module("models").MODELS
    assert [name for name, build in builders.items() if not examples_in(build, name)] == []

"""The examples in docstrings: each runs, and what people call carries one."""

import ast
import doctest
import importlib
import inspect
from pathlib import Path

import pytest

from models import MODELS
from training import Recipe

ROOT = Path(__file__).parent.parent
WITH_EXAMPLES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in ("sluice", "service", "models", "training")
    for path in sorted((ROOT / package).rglob("*.py"))
    if ">>> " in path.read_text()
]

# What carries no example, and why.
EXEMPT = {
    "training.data.sources.images.Example": "shown by the files that a user gives: test_data.py",
    "training.data.sources.images.read_parts": "takes files on disk: test_data.py",
    "training.fitting.fit.fit": "trains: test_train.py",
    "training.fitting.trainer.Trainer": "trains: test_train.py",
    "training.publishing.publish.publish": "takes a trained model: test_publish.py",
    "training.publishing.report.TrainingRun": "holds what a run came to: test_publish.py",
    "training.publishing.saved_model.Session": "takes a SavedModel: test_publish.py",
    "training.publishing.saved_model.graphs": "takes a SavedModel: test_publish.py",
    "training.publishing.signatures.SignatureGraphs": "takes seconds: test_publish.py",
    "training.publishing.trials.trials": "takes seconds: test_publish.py",
    "training.run.run": "trains: test_train.py",
    "training.workspace.finish": "takes a run's checkpoint: test_resume.py",
    "training.workspace.images_folder": "in the example of open_workspace",
    "sluice.wire.reflection.add_reflection": "takes a server: test_third_party.py",
    "sluice.wire.health.add_health": "takes a server: test_lifecycle.py",
    "sluice.wire.lasting_server.LastingServer": "takes a server: test_hostile_grpc.py",
    "sluice.wire.messages.read_or_abort": "takes a call: test_hostile_grpc.py",
}


def imported_names():
    """(module, name) of all that one of our modules takes from another, and that a package offers
    in its `__all__`. What a package keeps in modules with an underscore is its own affair."""
    for package in ("sluice", "service", "models", "training"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom):
                    public = path.name == "__init__.py" or "._" not in node.module
                    yield from ((node.module, each.name) for each in node.names if public)


def called():
    """Functions and classes of ours that are imported elsewhere, by their dotted names."""
    found = {}
    for module_name, name in sorted(set(imported_names())):
        room = module_name.partition(".")[0]
        if room not in ("sluice", "models", "training") or "_pb2" in module_name:
            continue
        thing = getattr(importlib.import_module(module_name), name, None)
        if getattr(thing, "__module__", "").partition(".")[0] != room:
            continue
        if inspect.isclass(thing) and issubclass(thing, Exception | Recipe) and thing != Recipe:
            continue  # an error's message is its example, and a recipe is one of a Recipe
        if callable(thing):
            found[f"{thing.__module__}.{name}"] = thing
    return found


CALLED = called()


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


@pytest.mark.parametrize("name", sorted(CALLED.keys() - EXEMPT))
def test_what_is_called_from_elsewhere_carries_an_example(name):
    assert examples_in(CALLED[name], name)


def test_what_is_exempt_is_there_and_has_none():
    assert len(CALLED) > 80
    assert [name for name in EXEMPT if examples_in(CALLED[name], name)] == []


@pytest.mark.parametrize("name", MODELS)
def test_what_builds_a_model_carries_an_example(name):
    # A variant is a functools.partial, which no search of its module finds.
    [found] = doctest.DocTestFinder().find(MODELS[name], name, globs={name: MODELS[name]})
    assert found.examples
    assert doctest.DocTestRunner().run(found).failed == 0

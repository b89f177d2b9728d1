"""What the client loads, what the bare package brings, and what it says of the rest."""

import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import sluice
from service.commands import EXTRAS

ROOT = Path(__file__).parents[2]
UNWANTED = ("tensorflow", "keras", "flask", "gunicorn")
# What each command says where the extras are missing.
NEEDS = {
    "up": '"sluice up" needs the gateway and modelserver extras: pip install '
    "'sluice[gateway,modelserver]'",
    "gateway": "\"sluice gateway\" needs the gateway extra: pip install 'sluice[gateway]'",
    "modelserver": '"sluice modelserver" needs the modelserver extra: pip install '
    "'sluice[modelserver]'",
    "train digits": "\"sluice train\" needs the training extra: pip install 'sluice[training]'",
}
# All that the extras bring.
BROUGHT = sorted({module for modules in EXTRAS.values() for module in modules})


@pytest.mark.parametrize("url", ["http://localhost", "grpc://localhost"])
def test_importing_it_loads_no_tensorflow_flask_or_gunicorn(url):
    script = (
        f"import sys; from sluice import Client; Client({url!r}).close(); "
        f"sys.exit(any(name in sys.modules for name in {UNWANTED}))"
    )
    run([sys.executable, "-c", script])


@pytest.mark.parametrize("module", ["sluice", "sluice.wire.tensors", "sluice.wire.model_ref"])
def test_the_wire_loads_neither_the_client_nor_its_libraries(module):
    unwanted = {"sluice.client", "httpx", "grpc"}
    script = f"import sys, {module}; print(*({unwanted} & set(sys.modules)))"
    assert run([sys.executable, "-c", script]).strip() == ""


def test_sluice_offers_all_that_its_client_does():
    assert sluice.__all__ == sluice.client.__all__
    assert all(getattr(sluice, name) is getattr(sluice.client, name) for name in sluice.__all__)
    assert set(sluice.__all__) <= set(dir(sluice))
    with pytest.raises(AttributeError, match="no attribute 'Clients'"):
        sluice.Clients  # noqa: B018
    names: dict = {}
    exec("from sluice import *", names)
    assert set(sluice.__all__) <= set(names)


def test_the_modules_of_an_extra_are_those_that_it_installs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    distributions = packages_distributions()
    for extra, modules in EXTRAS.items():
        brought = {distributions[module][0].lower().replace("_", "-") for module in modules}
        # What is for some machines alone (`;`) is not asked for.
        asked = {
            re.match(r"[\w-]+", each)[0]
            for each in project["optional-dependencies"][extra]
            if ";" not in each
        }
        assert brought == asked


@pytest.fixture
def foreign_repository(tmp_path):
    """A version that Sluice did not publish."""
    (tmp_path / "repository/theirs/1").mkdir(parents=True)
    (tmp_path / "repository/theirs/1/saved_model.pb").write_bytes(b"theirs")
    return tmp_path / "repository"


@pytest.mark.parametrize("command", NEEDS)
def test_a_command_without_its_extra_says_which_to_install(command):
    done = sluice_without(BROUGHT, command.split())
    assert (done.returncode, done.stderr) == (1, f"Error: {NEEDS[command]}\n")


def test_models_are_listed_without_any_extra(foreign_repository):
    arguments = ["models", f"--model-repository={foreign_repository}"]
    done = sluice_without(BROUGHT, arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert "theirs" in done.stdout


@pytest.mark.parametrize("command", NEEDS)
def test_a_missing_module_of_our_own_is_a_traceback(command):
    own = [
        "service.up.supervisor",
        "service.gateway.memory",
        "service.modelserver.__main__",
        "training.settings",
    ]
    done = sluice_without(own, command.split())
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ModuleNotFoundError" in done.stderr


def test_the_fuzzers_environment_holds_what_the_gateway_imports():
    """Nothing of ours is installed there; a list of its own would be found out minutes later."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["gateway"]]
    names = {re.match(r"[\w-]+", each)[0] for each in needed}
    around = {"a2wsgi", "click", "grpcio-health-checking", "gunicorn", "uvloop"}  # the application
    lines = (ROOT / "tests/clients/fuzz-requirements.txt").read_text().splitlines()
    assert names - around <= {*lines}


def sluice_without(modules, arguments):
    """The command's outcome in a process that can import none of the modules."""
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({modules})); "
        f"from service.cli import main; main({arguments}, prog_name='sluice')"
    )
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def source(tmp_path):
    """A copy to build from: setuptools leaves its traces beside the sources."""
    for package in ("sluice", "service", "models", "training"):
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    for file in ("pyproject.toml", "README.md", "LICENSE", "constraints.txt"):
        shutil.copy(ROOT / file, tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_bare_package_predicts_and_names_what_else_to_install(
    urls, samples, source, foreign_repository
):
    run([sys.executable, "-m", "venv", source / "venv"])
    python, command = source / "venv/bin/python", source / "venv/bin/sluice"
    pip = [python, "-I", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run([*pip, "install", "-c", source / "constraints.txt", source])
    installed = run([python, "-I", "-m", "pip", "list", "--format=freeze"]).lower()
    assert [name for name in UNWANTED if f"{name}==" in installed] == []
    for url in urls.values():
        script = (
            f"from sluice import Client\nwith Client({url!r}) as client:\n"
            f"    print(client.predict('digits', image={str(samples[3])!r}).labels[0])"
        )
        assert run([python, "-I", "-c", script]) == "3\n"
    for words, needs in NEEDS.items():
        done = subprocess.run(
            [command, *words.split()], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (1, f"Error: {needs}\n")
    assert "theirs" in run([command, "models", f"--model-repository={foreign_repository}"])
    # What it says to type is taken as the extra of the package that is here, whatever an index has.
    run([*pip, "install", "-c", source / "constraints.txt", "sluice[gateway]"])
    installed = run([python, "-I", "-m", "pip", "list", "--format=freeze"]).lower()
    assert "flask==" in installed
    assert "sluice @" in run([python, "-I", "-m", "pip", "freeze"])


def run(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout

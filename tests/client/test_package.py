"""What the client loads, and what the bare package brings."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNWANTED = ("tensorflow", "keras", "flask", "gunicorn")


@pytest.mark.parametrize("url", ["http://localhost", "grpc://localhost"])
def test_importing_it_loads_no_tensorflow_flask_or_gunicorn(url):
    script = (
        f"import sys; from sluice.client import Client; Client({url!r}).close(); "
        f"sys.exit(any(name in sys.modules for name in {UNWANTED}))"
    )
    run([sys.executable, "-c", script])


@pytest.fixture
def source(tmp_path):
    """A copy to build from: setuptools leaves its traces beside the sources."""
    for package in ("sluice", "service", "models", "training"):
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    for file in ("pyproject.toml", "README.md", "constraints.txt"):
        shutil.copy(ROOT / file, tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_bare_package_brings_none_and_predicts(urls, samples, source):
    run([sys.executable, "-m", "venv", source / "venv"])
    python = source / "venv/bin/python"
    run(
        [
            python,
            "-I",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "-c",
            source / "constraints.txt",
            source,
        ]
    )
    installed = run([python, "-I", "-m", "pip", "list", "--format=freeze"]).lower()
    assert [name for name in UNWANTED if f"{name}==" in installed] == []
    for url in urls.values():
        script = (
            f"from sluice.client import Client\nwith Client({url!r}) as client:\n"
            f"    print(client.predict('digits', image={str(samples[3])!r}).labels[0])"
        )
        assert run([python, "-I", "-c", script]) == "3\n"


def run(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout

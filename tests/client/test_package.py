"""What the client loads, and what the bare package brings."""
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNWANTED = ("tensorflow", "keras", "flask", "gunicorn")


@pytest.mark.parametrize("url", ["http://localhost", "grpc://localhost"])
def test_importing_it_loads_no_tensorflow_flask_or_gunicorn(url):
    script = (f"import sys; from service.client import Client; Client({url!r}).close(); "
              f"sys.exit(any(name in sys.modules for name in {UNWANTED}))")
    run([sys.executable, "-c", script])


@pytest.mark.slow
def test_the_bare_package_brings_none_and_predicts(urls, samples, tmp_path):
    run([sys.executable, "-m", "venv", tmp_path])
    python = tmp_path / "bin/python"
    run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
         "-c", ROOT / "constraints.txt", ROOT])
    installed = run([python, "-m", "pip", "list", "--format=freeze"]).lower()
    assert not [name for name in UNWANTED if f"{name}==" in installed]
    for url in urls.values():
        script = (f"from service.client import Client\nwith Client({url!r}) as client:\n"
                  f"    print(client.predict('digits', image={str(samples[3])!r}).labels[0])")
        assert run([python, "-c", script], cwd=tmp_path) == "3\n"


def run(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout

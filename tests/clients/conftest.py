"""Other people's clients, each in an environment of its own, made once and kept."""
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def run_client(request: pytest.FixtureRequest) -> Callable[..., str]:
    """`run_client("triton", *arguments)` -> what triton_client.py wrote, run where
    triton-requirements.txt is installed.

    SLUICE_CLIENT_ENVS names the directory of the environments; pytest's cache else.
    """
    root = Path(os.environ.get("SLUICE_CLIENT_ENVS") or request.config.cache.mkdir("client-envs"))

    def run(name: str, *arguments: str) -> str:
        python = environment(root, HERE / f"{name}-requirements.txt") / "bin" / "python"
        outcome = subprocess.run([python, "-W", "ignore", HERE / f"{name}_client.py", *arguments],
                                 capture_output=True, text=True, check=False, timeout=300)
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr
        return outcome.stdout

    return run


def environment(root: Path, requirements: Path) -> Path:
    """The virtual environment of a requirements file; another one when its text changes."""
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    directory = root / f"{requirements.stem}-{digest}"
    done = directory / ".installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)
        subprocess.run([directory / "bin" / "python", "-m", "pip", "install", "--quiet",
                        "--disable-pip-version-check", "-r", requirements], check=True)
        done.touch()
    return directory

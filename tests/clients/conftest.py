"""Other people's clients, each in an environment of its own."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def run_client(installed: Callable[[Path], Path]) -> Callable[..., str]:
    """`run_client("triton", *arguments)` -> what triton_client.py wrote, run where
    triton-requirements.txt is installed."""

    def run(name: str, *arguments: str) -> str:
        python = installed(HERE / f"{name}-requirements.txt") / "python"
        outcome = subprocess.run(
            [python, "-W", "ignore", HERE / f"{name}_client.py", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr
        return outcome.stdout

    return run

"""A gateway that follows rollouts, and the models that are rolled out before it."""

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import requests

from sluice.wire.rollout_files import remove_rollout
from sluice.wire.rollouts import Rollout

# By model, what each version is a copy of. `moved` answers x/2 + 2, then x/2 + 3, and so does
# `kept`, whose answers are; the next version of `broken` takes another input; that of `absent` is
# in the repository alone.
VERSIONS = {
    "moved": ("affine/1", "affine/2"),
    "kept": ("affine/1", "affine/2"),
    "same": ("affine/1", "affine/1"),
    "broken": ("affine/1", "pair/1"),
    "absent": ("affine/1", "affine/2"),
}
NOT_SERVED = ("absent", 2)


def copy_versions(models: Path, directory: Path, *, all_of_them: bool) -> None:
    """Make VERSIONS in `directory` of those in `models`: all, or those that are served."""
    for name, versions in VERSIONS.items():
        for number, version in enumerate(versions, start=1):
            if all_of_them or (name, number) != NOT_SERVED:
                shutil.copytree(models / version, directory / name / str(number))


def eventually(condition: Callable[[], Any]) -> Any:
    """What `condition` gives, once it gives something."""
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)
    return found


class Door(NamedTuple):
    """The gateway, the repository that it reads, and where it keeps what is answered otherwise."""

    url: str
    grpc: str
    repository: Path
    samples: Path

    def metrics(self) -> dict[str, float]:
        text = requests.get(f"{self.url}/metrics", timeout=30).text
        found = re.findall(r"^(sluice\S*) (\S+)$", text, re.MULTILINE)
        return {name: float(value) for name, value in found}

    def follow(self, model: str, rollout: Rollout) -> Rollout:
        """The rollout, once the gateway knows of it."""
        series = (
            f'sluice_rollout{{live="{rollout.live}",model="{model}",next="{rollout.next}",'
            f'stage="{rollout.stage}"}}'
        )
        share = 1.0 if rollout.answering == rollout.next else rollout.canary
        eventually(lambda: self.metrics().get(series) == share)
        return rollout

    def fresh(self, model: str) -> Path:
        """The model's directory, in which no rollout is, once the gateway knows it."""
        remove_rollout(self.repository / model)
        eventually(lambda: not any(f'model="{model}",next' in name for name in self.metrics()))
        return self.repository / model

    def predict(self, model: str, x: Any = 1.0, **headers: str) -> requests.Response:
        return requests.post(
            f"{self.url}/v1/models/{model}:predict",
            json={"instances": [x]},
            headers={name.replace("_", "-"): text for name, text in headers.items()},
            timeout=30,
        )

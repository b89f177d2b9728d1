"""Labels of a model's versions, `<repository>/<model>/labels.json`: {"stable": 3, "canary": 4}.

No model server reads it. It is what `sluice label` writes and `sluice up` puts into the model
server's models.config, where TensorFlow Serving wants labels to be.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from sluice.wire.rollout_files import read_rollout

LABELS_FILE = "labels.json"
_LABEL = re.compile(r"[A-Za-z][\w.-]{0,62}", re.ASCII)


def label_fault(label: str) -> str | None:
    """Why a version cannot be called so; None where it can.

    >>> label_fault("stable"), label_fault("7")
    (None, 'a label begins with a letter, and goes on with letters, digits, _, - or .')
    """
    if _LABEL.fullmatch(label):
        return None
    return "a label begins with a letter, and goes on with letters, digits, _, - or ."


def read_labels(model_directory: Path) -> dict[str, int]:
    """Versions by label; {} where there are none.

    Raises ValueError for a file that is none of ours, OSError where it cannot be read.

    >>> read_labels(Path("no such model"))
    {}
    """
    path = model_directory / LABELS_FILE
    try:
        labels = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(labels, dict) or not all(type(each) is int for each in labels.values()):
        raise ValueError(f'{path} is not as expected, {{"stable": 3}}')
    return labels


def labels_in_force(model_directory: Path) -> dict[str, int]:
    """Those, and before them what a rollout's labels mean. Raises as `read_labels` does.

    >>> labels_in_force(Path("no such model"))
    {}
    """
    rollout = read_rollout(model_directory)
    return {**read_labels(model_directory), **(rollout.labels if rollout else {})}


def write_labels(model_directory: Path, labels: Mapping[str, int]) -> None:
    """Write the file whole: whoever reads it finds the old labels or the new ones.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as model:
    ...     write_labels(Path(model), {"stable": 3})
    ...     read_labels(Path(model))
    {'stable': 3}
    """
    path = model_directory / LABELS_FILE
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(json.dumps(dict(sorted(labels.items())), indent=2) + "\n")
    beside.replace(path)

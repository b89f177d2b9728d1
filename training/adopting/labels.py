"""The names of classes: the user's own, or ImageNet's where Keras has fetched them once."""

import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from training.adopting.reading import reading
from training.errors import BadSetting

IMAGENET_CLASSES = 1000
# Control characters but for the tab, ends of lines, halves of characters.
_NO_TEXT = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def checked(labels: Sequence[str]) -> tuple[str, ...]:
    """Names, one for each class. Raises BadSetting.

    >>> checked([" cat", "dog"])
    ('cat', 'dog')
    """
    if isinstance(labels, str | Mapping):
        raise BadSetting(
            f"labels are the classes' names in the order of the output, in a list; got "
            f"{type(labels).__name__}"
        )
    named = tuple(str(label).strip() for label in labels)
    if not all(named) or not named:
        empty = f"number {named.index('') + 1} of {len(named)} is empty" if named else "got none"
        raise BadSetting(f"expected the name of every class as its label; {empty}")
    if twice := sorted(label for label, count in Counter(named).items() if count > 1):
        raise BadSetting(
            f"labels named twice: {', '.join(twice[:5])}; give each class a name of its own"
        )
    for number, label in enumerate(named, start=1):
        if _NO_TEXT.search(label):
            raise BadSetting(
                f"label {number}, {label!r}, has a control character or a line's end in it: a "
                f"label is a line of text"
            )
    return named


def index_file() -> Path:
    """Where keras.applications.imagenet_utils.decode_predictions keeps them.

    >>> index_file().name
    'imagenet_class_index.json'
    """
    home = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
    return Path(home, "models", "imagenet_class_index.json")


def imagenet() -> tuple[str, ...] | None:
    """In the order of keras.applications' outputs; None where they are not on the disk.

    Two names are those of two classes each: these have their WordNet numbers beside them.

    >>> imagenet() is None or len(imagenet()) == IMAGENET_CLASSES
    True
    """
    path = index_file()
    if not path.is_file():
        return None
    with reading(path):
        index = json.loads(path.read_text(encoding="utf-8"))
        classes = [index[str(number)] for number in range(IMAGENET_CLASSES)]
        counts = Counter(name for _, name in classes)
        return tuple(
            f"{name} ({wordnet})" if counts[name] > 1 else str(name) for wordnet, name in classes
        )

"""Which of the known names was meant by one that is not among them."""

from collections.abc import Iterable
from difflib import SequenceMatcher

# A client chooses how long its name is, and comparing it takes as long.
LONGEST = 80
LIKELY = 0.6  # from this likeness on, 0 to 1, a name was probably meant


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, whatever its case; None where none is near.

    >>> nearest("Imag", ["image", "label"]), nearest("x", ["image", "label"])
    ('image', None)
    """
    if len(name) > LONGEST:
        return None
    likeness, found = max(((_likeness(name, each), each) for each in known), default=(0, ""))
    return found if likeness >= LIKELY else None


def nearest_first(name: str, known: Iterable[str]) -> list[str]:
    """All known names by their likeness to `name`, then by themselves.

    >>> nearest_first("digit", ["fashion", "digits", "gan"])
    ['digits', 'gan', 'fashion']
    """
    if len(name) > LONGEST:
        return sorted(known)
    return sorted(known, key=lambda each: (-_likeness(name, each), each))


def _likeness(name: str, other: str) -> float:
    return SequenceMatcher(None, name.lower(), other.lower()).ratio()

"""Which of the known names was meant by one that is not among them."""

from collections.abc import Collection, Iterable
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


def unknown_name(given: Iterable[str], known: Collection[str]) -> str | None:
    """What to say of the first that is not among the known names; None where all are.

    >>> unknown_name(["image", "lable"], ["image", "label"])
    'lable is not known; did you mean label?'
    """
    for name in given:
        if name not in known:
            meant = nearest(name, known)
            advice = f"did you mean {meant}?" if meant else f"there are {', '.join(known)}"
            return f"{name} is not known; {advice}"
    return None


def _likeness(name: str, other: str) -> float:
    return SequenceMatcher(None, name.lower(), other.lower()).ratio()

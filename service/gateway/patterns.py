"""Names of models by shell patterns, as settings and the file of keys have them."""

import fnmatch
import re
from collections.abc import Callable, Iterable


def any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    """What matches the names that one of the patterns fits; where there are none, no name.

    >>> bool(any_of(["digits", "ab-*"]).match("ab-1")), any_of([]).match("digits")
    (True, None)
    """
    return re.compile("|".join(map(fnmatch.translate, patterns)) or "(?!)")


def named_by(patterns: str) -> Callable[[str], bool]:
    """Whether one of the patterns fits a name; commas separate them, as in settings.

    >>> list(map(named_by("digits, ab-*"), ["digits", "ab-1", "abc"]))
    [True, True, False]
    """
    wanted = any_of(pattern.strip() for pattern in patterns.split(",") if pattern.strip())
    return lambda name: wanted.match(name) is not None

"""Names of models by shell patterns, as settings and the file of keys have them."""

import fnmatch
import re
from collections.abc import Iterable


def any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    """What matches the names that one of the patterns fits; where there are none, no name.

    >>> bool(any_of(["digits", "ab-*"]).match("ab-1")), any_of([]).match("digits")
    (True, None)
    """
    return re.compile("|".join(map(fnmatch.translate, patterns)) or "(?!)")

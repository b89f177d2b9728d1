"""Which worker runs which test."""

import re

from xdist.scheduler import LoadFileScheduling

# Of files that take longest, the tests that are another worker's. By name, and not by the mark
# xdist_group, which pytest-xdist 3.8 does not heed under pytest 9.2 (its issue 1386).
APART = {"tests/training/test_recipes.py": re.compile(r"\[(vgg|resnet\d|inception|vit_b)")}


class ByFile(LoadFileScheduling):
    """A file is one worker's, for what is launched for it is shared by its tests; but for those
    that are APART."""

    def _split_scope(self, nodeid: str) -> str:
        return share_of(nodeid)


def share_of(nodeid: str) -> str:
    """What a test is given out with, by a name."""
    file, _, test = nodeid.partition("::")
    return f"{file}, apart" if file in APART and APART[file].search(test) else file

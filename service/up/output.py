"""What `sluice up` writes, its own lines and its children's, all on standard error."""

import os
import sys


def say(text: str, name: str = "sluice") -> None:
    """Each line of `text` after the name of who says it.

    Where nobody is left to read it (a closed terminal, `| head`) it goes nowhere from then on: to
    stop in order matters more.

    >>> say("") is None
    True
    """
    lines = "".join(f"[{name}] {line}\n" for line in text.splitlines())
    try:
        print(lines, end="", file=sys.stderr, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)

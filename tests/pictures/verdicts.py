"""What came out of a file by one way, held against what it shows."""

import numpy as np

LEVELS = 2  # of 255, on average
REFUSED = "refused"


def verdict(seen: np.ndarray | str, shows: np.ndarray | str | None) -> str:
    """ "" where it is as it should be; what is wrong else.

    seen: pixels, or the words of a refusal. shows: as corpus.Picture has it.
    """
    if not isinstance(shows, np.ndarray):
        if not isinstance(seen, str):
            return f"read as {seen.shape}, and not refused"
        return "" if shows is None or shows in seen else f"{REFUSED} as {seen}"
    if isinstance(seen, str):
        return f"{REFUSED}: {seen}"
    if seen.shape != shows.shape:
        return f"{seen.shape} for {shows.shape}"
    away = np.abs(seen - shows.astype(float)).mean()
    return "" if away <= LEVELS else f"{away:.1f} levels away"

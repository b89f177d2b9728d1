"""Points in time, as people read them."""

from datetime import UTC, datetime


def utc(seconds: float) -> str:
    """Of seconds since 1970, as RFC 3339 has it.

    >>> utc(1.8e9)
    '2027-01-15T08:00:00Z'
    """
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

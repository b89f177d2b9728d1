"""Answers that their clients have not taken yet, which the worker's memory holds meanwhile.

They are behind admission: who asks is not refused because others read slowly. Where they are more
than there is room for, the slowest readers make it, before their time without progress is over.
"""

from typing import Protocol

from service.gateway.settings import Settings

# What the system takes of one, or nearly; smaller ones are not looked at.
LARGE = 1 << 16
SHARE = 1 / 2  # of SLUICE_MAX_BYTES_IN_FLIGHT, that they have beside it
SETTLE_S = 0.5  # that a reader has before it is held against the others


class Owed:
    """What one client has yet to take, bytes, and how it does. Times are on the monotonic clock."""

    def __init__(self) -> None:
        # What is left at the first look and at the last, and when those were: the last at which it
        # had become less. 0: nobody has looked.
        self._first = self._last = 0
        self._since = self._taken_at = 0.0

    def forget(self) -> None:
        """It has taken all."""
        self._since = 0.0

    def look(self, left: int, now: float) -> None:
        if not self._since:
            self._first = self._last = left
            self._since = self._taken_at = now
        elif left < self._last:
            self._last, self._taken_at = left, now
        else:  # the next answer is behind it, perhaps: over TLS, which has no end of room
            self._first += left - self._last
            self._last = left

    def has_waited(self, now: float, settings: Settings) -> bool:
        """Whether the client has been waited for long enough at the last look. It may take as long
        to read as it may to send: it is to go on, and with as much a second. Not where nothing is
        left: such a connection is being closed already."""
        if not self._last:
            return False
        took_s, within_s = now - self._since, settings.body_timeout_s
        taken = self._first - self._last
        is_slow = took_s > within_s and taken < settings.min_body_rate * took_s
        return is_slow or now - self._taken_at > within_s

    def taken(self, left: int, now: float) -> tuple[int, float]:
        """Bytes that the client has taken since the first look, and when that was."""
        if not self._since:
            return 0, now
        return max(self._first - left, 0), self._since


class Reader(Protocol):
    """A client's connection."""

    def held(self) -> int:
        """Bytes that its answers take until they are gone; 0 from then on."""

    def taken(self, now: float) -> tuple[int, float]:
        """Bytes that it has taken since it was first looked at, and when that was."""

    def hang_up(self, reason: str) -> None:
        """`reason` is what it is counted by."""


class Unsent:
    """Of one worker. Times are on the monotonic clock."""

    def __init__(self) -> None:
        self._readers: set[Reader] = set()

    def add(self, reader: Reader) -> None:
        """One whose client has more to take."""
        self._readers.add(reader)

    def discard(self, reader: Reader) -> None:
        self._readers.discard(reader)

    def make_room(self, most_bytes: int, now: float) -> None:
        """Hang up on the slowest, on who has just begun last, until `most_bytes` are left, or one
        reader, whose answer is larger than that."""
        held = {reader: reader.held() for reader in self._readers}
        self._readers = {reader for reader, size in held.items() if size}
        over = sum(held.values()) - most_bytes
        if over <= 0:
            return
        for reader in sorted(self._readers, key=lambda each: _pace(each, now))[:-1]:
            self._readers.discard(reader)
            reader.hang_up("room")
            over -= held[reader]
            if over <= 0:
                return


def _pace(reader: Reader, now: float) -> tuple[bool, float, float]:
    """Whether it has just begun, bytes a second, and since when. Of two that have just begun the
    later has taken less, whoever they are."""
    size, since = reader.taken(now)
    took_s = now - since
    has_begun = took_s < SETTLE_S
    return has_begun, 0.0 if has_begun else size / took_s, since

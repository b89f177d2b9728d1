"""The line of what has been answered and is to be asked of the next version too."""

from collections import deque
from dataclasses import dataclass

from service.gateway.answer import Answer
from service.gateway.asking import Question
from service.gateway.caller import Caller
from service.gateway.forwarded import Forwarded, Unread
from service.gateway.traffic import Kind
from sluice.wire.rollouts import Rollout


@dataclass(eq=False, slots=True)
class Pair:
    """A question, and what the live version answered: in `seconds`, in a call of `joined` rows.
    `size`: bytes of both. `kind`: of those that it can go with; None: it goes alone."""

    rollout: Rollout
    question: Question | Forwarded
    answer: Answer | Unread
    caller: Caller
    seconds: float
    joined: int
    size: int
    kind: Kind | None

    @property
    def model(self) -> str:
        return self.question.model.name

    @property
    def rows(self) -> int:
        return self.question.rows or 1

    @property
    def alone(self) -> bool:
        return self.kind is None

    def goes_with(self, first: "Pair") -> bool:
        """Whether one call can ask both."""
        is_of_kind = self.kind is not None and self.kind == first.kind
        return is_of_kind and self.rollout.id == first.rollout.id


class ShadowLine:
    """So many pairs and bytes at the most."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._pairs: deque[Pair] = deque()
        self._held = 0  # bytes
        self._turn = 0

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def first(self) -> Pair:
        return self._pairs[0]

    def has_room(self, size: int) -> bool:
        """For one more, of so many bytes."""
        return len(self._pairs) < self._most and self._held + size <= self._most_bytes

    def add(self, pair: Pair) -> None:
        self._pairs.append(pair)
        self._held += pair.size

    def leave(self, pair: Pair) -> None:
        self._pairs.remove(pair)
        self._held -= pair.size

    def take(self, most_rows: int) -> tuple[list[Pair], int]:
        """The first, and those after it that can go with it; and how many copies of the first go
        too. Every other turn as many rows go as went with the first, if they may, so that the times
        of the two calls say something: copies stand in for those that are not in line."""
        first, self._turn = self.first, self._turn + 1
        taken, rows = [first], first.rows
        is_timed = bool(self._turn % 2) and not first.alone and first.joined <= most_rows
        if is_timed:
            most_rows = first.joined
        for pair in () if first.alone else list(self._pairs)[1:]:
            if not pair.goes_with(first):
                continue
            if not pair.caller.answered or rows + pair.rows > most_rows:
                break
            taken.append(pair)
            rows += pair.rows
        for pair in taken:
            self.leave(pair)
        return taken, max((most_rows - rows) // first.rows, 0) if is_timed else 0


def are_alike(rows: int, other: int) -> bool:
    """Whether calls of so many rows take about as long.

    >>> are_alike(4, 7), are_alike(4, 8)
    (True, False)
    """
    return rows.bit_length() == other.bit_length()

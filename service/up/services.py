"""A child that is started again when it dies, unless it keeps dying."""

import time
from collections.abc import Callable, Mapping, Sequence

from service.up.output import say
from service.up.processes import Child

MOST_DEATHS = 3
WITHIN_S = 60.0
FIRST_PAUSE_S = 1.0


class GivenUp(Exception):
    """A child will not be started again; the message has its last words."""


class Service:
    """One child, by `command`: `keep_up` is to be called every now and then.

    answers: whether it does what it is there for, as far as can be asked.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        answers: Callable[[], bool],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self._command, self._environment = name, command, environment
        self._answers = answers
        self._child: Child | None = None
        self._start_at = 0.0  # on the monotonic clock
        self._deaths: list[float] = []
        self._has_answered = self.is_up = False

    def keep_up(self) -> None:
        """Start it where it does not run, and ask it until it answers.

        Raises GivenUp where it died before it ever answered, which will not change by itself, and
        where it has died `MOST_DEATHS` times within `WITHIN_S` seconds or with no answer between.
        """
        now = time.monotonic()
        if self._child and self._child.exit_status is not None:
            self._bury(self._child, now)
        if self._child is None and now >= self._start_at:
            self._child = Child(self.name, self._command, self._environment)
        if self._child and not self.is_up and self._answers():
            if self._has_answered:
                say(f"The {self.name} answers again")
            self.is_up = self._has_answered = True

    def stop(self, within_s: float) -> None:
        if self._child:
            self._child.stop(within_s)

    def _bury(self, child: Child, now: float) -> None:
        child.stop(0)  # what is left of its group
        recent = [death for death in self._deaths if now - death < WITHIN_S or not self.is_up]
        self._deaths = [*recent, now]
        self._child, self.is_up = None, False
        if not self._has_answered:
            raise GivenUp(child.last_words())
        if len(self._deaths) >= MOST_DEATHS:
            raise GivenUp(
                f"{child.last_words()}\nIt has died {MOST_DEATHS} times within {WITHIN_S:g} s, or "
                "before it answered again, and is not started any more"
            )
        pause_s = FIRST_PAUSE_S * 2 ** (len(self._deaths) - 1)
        self._start_at = now + pause_s
        say(f"{child.ending()}; it is started again in {pause_s:g} s")

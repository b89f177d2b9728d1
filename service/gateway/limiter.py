"""How many calls may be at the model server at once, learnt from how long they take.

Requests that wait are joined, so every call more in flight makes the calls smaller, and every call
fewer leaves the model server idle while one is on its way. The right number depends on the model,
the cores or GPU behind it and the load, so it is not a setting. TCP Vegas has the rule: of `limit`
calls in flight, `limit x (1 - shortest / latest)` do not run but stand in a queue at the other end;
the limit grows while hardly any does, and shrinks when one and more do. Envoy's gradient controller
(its adaptive concurrency filter) adds the square root of the limit on top, which on two cores means
four calls in flight where two serve best: docs/decisions/0012-calls-in-flight.md has the figures.

A call's time grows with its rows, so calls are compared with calls of about the same size.

Other gateways' calls are in the same queue, and none of them ever sees it empty: each takes the
others' calls for part of the shortest time, and would add its own on top. So a call is also held
against the time that its requests have: where calls take most of that, none is added.
"""

import math
import random

FEW_QUEUED, MANY_QUEUED = 0.5, 1.0  # calls that stand in the model server's queue
MOST_SHARE = 0.5  # of its requests' time, that a call may take in company
MAX_ROWS = 1 << 30
MOST = 64  # calls in flight; more than this waits for the model server whatever it is
SMOOTHING = 0.2  # the share of the newest call in the mean time of calls of its size
RISING = 0.5  # the same in that of all calls, where it took longer
LEAST_S = 1e-3
LONGEST_S = 86_400.0  # that a request may have: no more counts
RATE_OVER_S = 1.0  # over which the rate of answered rows is a mean
FLAT = 1.5  # what takes hardly longer than the smallest call is no reason for smaller ones
TWO_ROWS = (2).bit_length()  # the size of such calls
# The shortest time is measured anew now and then: the model, or its machine, may have changed.
RENEW_AFTER_S, RENEW_JITTER_S = 30.0, 10.0
RENEWING_CALLS = 8


class Limiter:
    """The limit of one model's calls, joined up to `max_rows`. For one event loop."""

    def __init__(self, max_rows: int = MAX_ROWS) -> None:
        self.limit = 1
        self._max_rows = max_rows
        self.usual_s = 0.0  # how long a call has taken lately
        # Rows a second of what is joined that are answered while others wait; 0: not known.
        self._rate = 0.0
        self._counted_from = 0.0
        self._shortest_s: dict[int, float] = {}
        self._alone: set[int] = set()  # sizes whose shortest time is of a call that had no company
        self._best_pace = 0.0  # rows a second of the best call; 0 before the first
        self._usual_of: dict[int, float] = {}
        self._last_of: dict[int, float] = {}  # what the last call of a size took
        self._patience_s = 0.0  # that requests have had in all lately; 0 before the first
        self._room = 1.0  # the limit, with its fraction
        self._renewing = 0
        self._renew_at = 0.0
        self._hung_up_on = 0  # calls that were late, since one was answered

    def begin_to_wait(self, now: float) -> None:
        """The first request is in line: the time before does not tell what can be answered."""
        self._counted_from = now

    def count_from(self, moment: float) -> None:
        """Before it nothing could be answered, or nothing was counted."""
        self._counted_from = max(self._counted_from, moment)

    def drain_s(self, rows: int, calls: int = 1) -> float:
        """How long so many rows, in so many calls at the least, take to be answered, seconds; 0
        where it is not known. Calls of very many take no longer than others of their size did,
        whatever the rate of small ones."""
        if not self._rate:
            return 0.0
        return min(rows / self._rate, calls * self.like_s(rows // calls))

    def answered_s(self, rows: int) -> float:
        """How long it takes until so many rows, in flight and behind that, are answered, seconds; 0
        where it is not known, or where more rows take no longer. By the rate, not by what calls
        have taken: at the beginning of an overload they become larger than they ever were."""
        return 0.0 if not self._rate or self._rows_are_free else rows / self._rate

    @property
    def _rows_are_free(self) -> bool:
        """As far as is known: the largest calls are as fast as the fastest."""
        largest_s = self._shortest_s.get(max(self._shortest_s, default=0), 0.0)
        return largest_s <= FLAT * self._fastest_s

    def like_s(self, rows: int) -> float:
        """How long calls of about so many rows take; any time where there was none."""
        return self._usual_of.get(rows.bit_length(), math.inf)

    @property
    def _fastest_s(self) -> float:
        return min(self._shortest_s.values(), default=0.0)

    def rows_within(self, seconds: float) -> int:
        """The most rows of a call that takes no longer, at the best pace seen. Where even the
        shortest call takes as long, it is its rows that cost nothing."""
        if not self._best_pace:
            return MAX_ROWS
        return max(1, int(self._best_pace * max(seconds, FLAT * self._fastest_s)))

    def rows_to_try(self, seconds: float) -> int:
        """The same; two where it is one and two have not been tried: they may take no longer."""
        rows = self.rows_within(seconds)
        return 2 if rows == 1 and TWO_ROWS not in self._shortest_s else rows

    def too_late(self, now: float) -> float:
        """By when a call that is made now is not answered, however fast it is."""
        return now + self._fastest_s

    def record(
        self,
        rows: int,
        seconds: float,
        in_flight: int,
        now: float,
        *,
        time_s: float = math.inf,
        waiting: bool = False,
    ) -> None:
        """A call that was answered, the most calls in flight (itself included) at its beginning and
        its end, how long its requests have had in all, and whether others are in line."""
        self._hung_up_on = 0
        self._record_rate(rows, seconds, now, waiting)
        self._record_usual(seconds)
        self._record_patience(time_s)
        size = rows.bit_length()
        self._last_of[size] = seconds
        usual = self._usual_of.get(size, seconds)
        self._usual_of[size] = usual = usual + SMOOTHING * (seconds - usual)
        is_renewing = self._is_renewing(now)
        if is_renewing and in_flight > 1:  # from before: they have waited for each other
            return
        if self._renewing == RENEWING_CALLS:  # until there is something newer, the old is known
            self._forget()
        if in_flight == 1:
            self._alone.add(size)
        self._best_pace = max(self._best_pace, rows / max(seconds, LEAST_S))
        shortest = self._shortest_s[size] = min(seconds, self._shortest_s.get(size, seconds))
        if is_renewing:
            self._renewing -= 1
            self.limit = 1 if self._renewing else int(self._room)
        elif in_flight >= self.limit:  # else it was not the limit that held this one up
            queued = self._room * (1 - shortest / usual)
            share = max(seconds, usual) / (MOST_SHARE * max(time_s, self._patience_s))
            self._adapt(queued, share, may_grow=size in self._alone)

    def give_up(
        self, rows: int, seconds: float, *, time_s: float = math.inf, hung_up: bool = False
    ) -> float:
        """Of a call of so many rows that nobody waits for any more, after so long, whose requests
        had `time_s` in all, and `hung_up` before that was over: for how much longer the model
        server works at it, as far as can be told, seconds; where it is late already, and tells
        nothing of the others, as much again."""
        self._record_patience(time_s)
        size = rows.bit_length()
        # One that found the model cold is in the mean for long.
        usual_s = min(self._usual_of.get(size, self.usual_s), self._last_of.get(size, math.inf))
        if seconds < usual_s:
            return usual_s - seconds
        self._record_usual(seconds)
        if time_s < self._patience_s / 2 or (hung_up and self._others_are_answered()):
            return seconds  # or more and more of theirs would stand there
        self._make_room(self._room / 2)
        return 0.0

    def _others_are_answered(self) -> bool:
        """Whoever hangs up does so when he likes: it tells of the model server once as many have as
        calls may be in flight, and none was answered meanwhile."""
        self._hung_up_on += 1
        if self._hung_up_on < self.limit:
            return True
        self._hung_up_on = 0
        return False

    def _record_patience(self, time_s: float) -> None:
        """The mean of the times' logarithms, which one of many does not move far. What is too long
        for somebody who has far less time than most is no reason to make their calls fewer."""
        time_s = min(max(time_s, LEAST_S), LONGEST_S)
        before = self._patience_s or time_s
        self._patience_s = before * (time_s / before) ** SMOOTHING

    def _record_usual(self, seconds: float) -> None:
        """Up sooner than down: at the beginning of an overload calls become longer one by one, and
        whoever is let in by the time of those before is late."""
        share = 1.0 if not self.usual_s else RISING if seconds > self.usual_s else SMOOTHING
        self.usual_s += share * (seconds - self.usual_s)

    def _adapt(self, queued: float, share: float, *, may_grow: bool) -> None:
        """By how many calls stand in the model server's queue, and the share that a call takes of
        the most that it may. Where a call of this size has never been alone, its shortest time may
        be that of a queue: no reason to make it longer."""
        if share > 1:
            self._make_room(self._room / share)
        elif queued > MANY_QUEUED:
            self._make_room(self._room - 1 / self._room)
        elif queued < FEW_QUEUED and may_grow and share * (1 + 1 / self.limit) <= 1:
            self._make_room(self._room + 1 / self._room)

    def _make_room(self, calls: float) -> None:
        self._room = min(max(calls, 1.0), float(MOST))
        if not self._renewing:
            self.limit = int(self._room)

    def _record_rate(self, rows: int, seconds: float, now: float, waiting: bool) -> None:
        """A mean over time. While nobody waits, the rate is that of the clients, and says only that
        the model server's is no less: nothing, where it is not known yet. Neither the time nor
        the rows of a call too large to be joined say anything of the others'."""
        took_s, self._counted_from = now - self._counted_from, now
        if rows > self._max_rows:
            return
        if not self._rate:
            is_first = not self.usual_s  # it may have found the model cold
            self._rate = rows / max(took_s, LEAST_S) if waiting and not is_first else 0.0
            return
        rate = (self._rate * RATE_OVER_S + rows) / (took_s + RATE_OVER_S)
        if waiting:
            self._rate = rate
        else:
            self._rate = max(self._rate, rate, rows / max(seconds, LEAST_S))

    def _is_renewing(self, now: float) -> bool:
        """Whether calls run alone now, to find the shortest time anew."""
        if not self._renewing and now >= self._renew_at:
            first = not self._renew_at
            self._renew_at = now + RENEW_AFTER_S + random.uniform(0, RENEW_JITTER_S)
            if not first:
                self._renewing, self.limit = RENEWING_CALLS, 1
        return self._renewing > 0

    def _forget(self) -> None:
        self._shortest_s.clear()
        self._alone.clear()
        self._best_pace = 0.0

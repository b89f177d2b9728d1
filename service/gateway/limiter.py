"""How many calls may be at the model server at once, learnt from how long they take.

Requests that wait are joined, so every call more in flight makes the calls smaller, and every call
fewer leaves the model server idle while one is on its way. The right number depends on the model,
the cores or GPU behind it and the load, so it is not a setting. TCP Vegas has the rule: of `limit`
calls in flight, `limit x (1 - shortest / latest)` do not run but stand in a queue at the other end;
the limit grows while hardly any does, and shrinks when one and more do. Envoy's gradient controller
(its adaptive concurrency filter) adds the square root of the limit on top, which on two cores means
four calls in flight where two serve best: docs/decisions/0012-calls-in-flight.md has the figures.

A call's time grows with its rows, so calls are compared with calls of about the same size.
"""

import random

FEW_QUEUED, MANY_QUEUED = 0.5, 1.0  # calls that stand in the model server's queue
MOST = 64  # calls in flight; more than this waits for the model server whatever it is
SMOOTHING = 0.2  # the share of the newest call in the mean time of calls of its size
# The shortest time is measured anew now and then: the model, or its machine, may have changed.
RENEW_AFTER_S, RENEW_JITTER_S = 30.0, 10.0
RENEWING_CALLS = 8


class Limiter:
    """The limit of one model's calls. For one event loop."""

    def __init__(self) -> None:
        self.limit = 1
        self._shortest_s: dict[int, float] = {}
        self._usual_s: dict[int, float] = {}
        self._room = 1.0  # the limit, with its fraction
        self._renewing = 0
        self._renew_at = 0.0

    def usual_s(self) -> float:
        """How long a call has taken lately, seconds; 0 before the first."""
        return max(self._usual_s.values(), default=0.0)

    def record(self, rows: int, seconds: float, in_flight: int, now: float) -> None:
        """A call that was answered, and the calls in flight (itself included) at its end."""
        size = rows.bit_length()
        usual = self._usual_s.get(size, seconds)
        self._usual_s[size] = usual = usual + SMOOTHING * (seconds - usual)
        shortest = self._shortest_s[size] = min(seconds, self._shortest_s.get(size, seconds))
        if self._is_renewing(now):
            return
        if in_flight < self.limit:  # it was not the limit that held this one up
            return
        queued = self._room * (1 - shortest / usual)
        if queued < FEW_QUEUED:
            self._room += 1 / self._room
        elif queued > MANY_QUEUED:
            self._room -= 1 / self._room
        self._room = min(max(self._room, 1.0), float(MOST))
        self.limit = int(self._room)

    def _is_renewing(self, now: float) -> bool:
        """Whether this call was one of those that run alone to find the shortest time anew."""
        if self._renewing:
            self._renewing -= 1
            if not self._renewing:
                self.limit = int(self._room)
            return True
        if now >= self._renew_at:
            first = not self._renew_at
            self._renew_at = now + RENEW_AFTER_S + random.uniform(0, RENEW_JITTER_S)
            if not first:
                self._shortest_s.clear()
                self._renewing, self.limit = RENEWING_CALLS, 1
                return True
        return False

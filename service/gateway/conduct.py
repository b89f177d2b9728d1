"""How a model server has done lately, and whether that is reason to send it no more calls.

Envoy's outlier detection works alike.
"""

QUIET_S = 0.5  # a server that holds calls and answers none for so long is not well
SLOW_S, SLOW_RATIO = 0.25, 5.0  # slower than this, and than so many times its fastest neighbour
FAILURES = 3  # in a row
EJECTED_S, MOST_EJECTED_S = 1.0, 300.0  # before it is asked again; doubled each time in a row
FORGIVEN_AFTER_S = 60.0  # of good behaviour, the first time out is short again
SMOOTHING = 0.3  # the share of the newest call in a server's mean time


class Conduct:
    """Of one server. Times are on the monotonic clock, seconds."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.usual_s = 0.0  # what a call takes; 0 before the first
        self._quiet_since = 0.0  # the last answer, or the first call after none was in flight
        self._failures = 0
        self._ejected_for_s = 0.0  # the last time
        self._returned_at = 0.0  # from then; 0: it never was

    def begin(self, now: float) -> None:
        if not self.in_flight:
            self._quiet_since = now
        self.in_flight += 1

    def end(self, now: float, seconds: float | None, failed: bool) -> None:
        """A call that has ended: with an answer of the model's, or `failed`; after so long, None
        where that is not known."""
        self.in_flight -= 1
        self._quiet_since = now
        self._failures = self._failures + 1 if failed else 0
        if not failed and seconds is not None:
            self.usual_s += SMOOTHING * (seconds - self.usual_s)

    def abandon(self) -> None:
        """A call whose caller has left, or that failed while the gateway stood still, says nothing
        about the server."""
        self.in_flight -= 1

    def what_is_wrong(self, now: float, fastest_s: float, awake_since: float) -> str:
        """Given the mean time of its fastest neighbour, and since when the gateway has not stood
        still; "" for nothing."""
        # What is new, or back, is measured by its neighbours: all calls may take long.
        usual_s = max(self.usual_s, fastest_s)
        quiet_s = now - max(self._quiet_since, awake_since)
        if self.in_flight and quiet_s > max(QUIET_S, 4 * usual_s):
            return "answers nothing"
        if self.usual_s > max(SLOW_S, SLOW_RATIO * fastest_s):
            return "is far slower than others"
        return "only fails" if self._failures >= FAILURES else ""

    def time_out_s(self, now: float) -> float:
        """For how long it is ejected now: twice as long where it has come back lately."""
        again = self._returned_at and now - self._returned_at < FORGIVEN_AFTER_S
        self._ejected_for_s = min(2 * self._ejected_for_s, MOST_EJECTED_S) if again else EJECTED_S
        return self._ejected_for_s

    def come_back(self, now: float) -> None:
        """From a time out."""
        self.begin_anew(now)
        self._returned_at = now

    def begin_anew(self, now: float) -> None:
        """What it did before says nothing about what it will do now."""
        self._failures, self.usual_s, self._quiet_since = 0, 0.0, now

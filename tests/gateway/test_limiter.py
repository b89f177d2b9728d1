"""The limit finds how many calls a model server works on at once: in simulated time, with servers
of so many cores."""

import heapq
import random

import pytest

from service.gateway import limiter as limiter_module
from service.gateway.limiter import MOST, Limiter


class Simulation:
    """A model server of `cores` that takes `seconds` of one for a call, and clients who always
    have another: a call goes as soon as the limit lets it."""

    def __init__(self, cores, seconds=0.01, noise=0.02, seed=1):
        self.cores, self.seconds, self.noise = cores, seconds, noise
        self.limiter = Limiter()
        self.now = 0.0
        self.limits = []  # after each call
        self.answered = 0
        self._random = random.Random(seed)
        self._waiting = []  # when each was sent, in the server's queue
        self._running = []  # (its end, when it was sent)

    def run(self, seconds):
        """Go on for so long; the limits meanwhile."""
        self.limits = []
        end = self.now + seconds
        while self.now < end:
            while len(self._waiting) + len(self._running) < self.limiter.limit:
                self._waiting.append(self.now)
            while self._waiting and len(self._running) < self.cores:
                took = self.seconds * self._random.uniform(1 - self.noise, 1 + self.noise)
                heapq.heappush(self._running, (self.now + took, self._waiting.pop(0)))
            self.now, sent = heapq.heappop(self._running)
            in_flight = len(self._waiting) + len(self._running) + 1
            self.limiter.record(4, self.now - sent, in_flight, self.now)
            self.answered += 1
            self.limits.append(self.limiter.limit)
        return self.limits

    def mean(self):
        return sum(self.limits) / len(self.limits)


@pytest.fixture(autouse=True)
def no_chance(monkeypatch):
    monkeypatch.setattr(limiter_module.random, "uniform", random.Random(1).uniform)


def test_the_first_call_goes_alone():
    assert Limiter().limit == 1


@pytest.mark.parametrize("cores", [1, 2, 4, 8, 16])
def test_it_settles_near_the_number_of_cores(cores):
    simulation = Simulation(cores)
    simulation.run(20)
    before = simulation.answered
    simulation.run(60)
    assert cores <= simulation.mean() <= cores * 1.25 + 1.5
    capacity = cores * 60 / simulation.seconds
    assert (simulation.answered - before) / capacity > 0.9, "looking anew costs little"


@pytest.mark.parametrize("cores", [1, 2, 4])
def test_calls_of_uneven_length_do_not_keep_few_cores_idle(cores):
    simulation = Simulation(cores, noise=0.1)
    simulation.run(20)
    simulation.run(60)
    assert cores <= simulation.mean() <= cores * 1.25 + 1.5


def test_it_never_grows_without_bound():
    simulation = Simulation(cores=10_000, noise=0.0)
    assert max(simulation.run(30)) == MOST


def test_it_shrinks_where_cores_are_lost_and_grows_back():
    simulation = Simulation(cores=8)
    simulation.run(20)
    assert simulation.mean() > 5
    simulation.cores = 2
    simulation.run(10)
    simulation.run(10)
    assert simulation.mean() < 5
    simulation.cores = 8
    simulation.run(20)
    simulation.run(20)
    assert simulation.mean() > 6


def test_a_model_that_has_become_slower_for_good_is_measured_anew():
    simulation = Simulation(cores=4)
    simulation.run(20)
    simulation.seconds *= 5
    simulation.run(3)
    simulation.run(3)
    assert simulation.mean() < 4, "at first it looks like a queue"
    simulation.run(60)
    simulation.run(60)
    assert 4 <= simulation.mean() <= 6.5


def test_calls_that_the_limit_did_not_hold_up_say_nothing():
    limiter = Limiter()
    for call in range(100):
        limiter.record(1, 0.01, 1, call * 0.1)
    grown = limiter.limit
    assert grown > 1
    for call in range(100):
        limiter.record(1, 0.01, 1, 10 + call * 0.1)
    assert limiter.limit == grown


def test_large_calls_are_not_taken_for_slow_ones():
    limiter = Limiter()
    for call in range(200):
        rows = 1 if call % 2 else 64
        limiter.record(rows, rows * 0.01, limiter.limit, call * 0.01)
    assert limiter.limit > 8


def test_what_quiet_clients_ask_does_not_tell_how_long_a_crowd_would_wait():
    limiter = Limiter()
    for second in range(0, 100, 5):
        limiter.record(1, 0.002, 1, 4500.0 + second)
    assert limiter.drain_s(100) == 0


def test_how_long_a_crowd_waits_is_told_by_what_is_answered_while_others_wait():
    limiter = Limiter()
    limiter.begin_to_wait(10.0)
    for call in range(1, 100):
        limiter.record(32, 0.1, 1, 10.0 + call / 10, waiting=True)
    assert limiter.drain_s(320) == pytest.approx(1.0, rel=0.1)
    limiter.record(640, 0.1, 1, 30.0)
    assert limiter.drain_s(640) == pytest.approx(0.1, rel=0.1)


def test_calls_that_take_most_of_their_requests_time_are_not_made_more():
    """Whatever the shortest time says: it may be that of a queue, in which others' calls stand."""
    limiter = Limiter()
    for call in range(20):
        limiter.record(4, 0.1, limiter.limit, call / 10, time_s=0.15)
    assert limiter.limit == 1
    for call in range(20, 40):
        limiter.record(4, 0.1, limiter.limit, call / 10, time_s=1.0)
    grown = limiter.limit
    assert grown > 1
    for call in range(40, 80):
        limiter.record(4, 0.1, limiter.limit, call / 10, time_s=0.15)
    assert limiter.limit == 1


def test_what_was_given_up_late_tells_that_calls_take_as_long():
    limiter = Limiter()
    limiter.record(4, 0.1, 1, 0.0)
    assert limiter.give_up(4, 0.03) == pytest.approx(0.07), "so much longer the model server works"
    assert limiter.usual_s == pytest.approx(0.1)
    for _ in range(20):
        assert limiter.give_up(4, 2.0) == 0
    assert limiter.usual_s == pytest.approx(2.0, rel=0.1)


def test_one_in_a_hurry_makes_the_calls_of_the_others_no_fewer():
    limiter = Limiter()

    def answer(time_s):
        limiter.record(4, 0.1, limiter.limit, 0.0, time_s=time_s)

    for _ in range(100):
        answer(30.0)
    grown = limiter.limit
    assert grown > 4
    for _ in range(50):
        assert limiter.give_up(4, 0.12, time_s=0.12) == 0.12, "late by as much again"
        for time_s in (0.15, 30.0, 30.0, 30.0):
            answer(time_s)
    assert limiter.limit >= grown
    for _ in range(50):
        limiter.give_up(4, 0.12, time_s=0.12)
    assert limiter.limit == 1, "all are in a hurry"


def test_whoever_hangs_up_makes_the_calls_of_the_others_no_fewer():
    limiter = Limiter()
    for _ in range(100):
        limiter.record(4, 0.1, limiter.limit, 0.0, time_s=30.0)
    grown = limiter.limit
    assert grown > 4
    for _ in range(50):
        for _ in range(grown - 1):
            given_up = limiter.give_up(64, 0.12, time_s=30.0, hung_up=True)
            assert given_up == 0.12, "late by as much again"
        limiter.record(4, 0.1, limiter.limit, 0.0, time_s=30.0)
    assert limiter.limit >= grown
    for _ in range(4 * grown):
        limiter.give_up(4, 0.12, time_s=30.0, hung_up=True)
    assert limiter.limit == 1, "and nobody is answered"


def test_a_call_that_found_the_model_cold_does_not_tell_how_long_the_others_go_on():
    limiter = Limiter()
    for seconds in (10.0, 0.005):
        limiter.record(1, seconds, 1, 0.0)
    assert limiter.give_up(1, 0.003) == pytest.approx(0.002)


def test_what_is_known_of_a_model_is_known_until_there_is_something_newer():
    limiter = Limiter()
    for call in range(10):
        limiter.record(10, 0.1, 1, float(call))
    limiter.record(10, 0.1, 2, 100.0)
    assert limiter.limit == 1, "it looks anew"
    assert limiter.rows_within(1.0) == 100
    limiter.record(10, 0.5, 1, 101.0)
    assert limiter.rows_within(1.0) == 20


@pytest.mark.parametrize(("two_take_s", "rows"), [(0.5, 3), (1.0, 1)])
def test_two_rows_are_tried_where_one_takes_all_the_time_there_is(two_take_s, rows):
    limiter = Limiter()
    limiter.record(1, 0.5, 1, 0.0)
    assert limiter.rows_to_try(0.1) == 2
    limiter.record(2, two_take_s, 1, 1.0)
    assert limiter.rows_to_try(0.1) == rows


def test_a_call_that_is_given_up_is_held_against_those_of_its_size():
    limiter = Limiter()
    for rows, seconds in [(64, 0.5), (1, 0.005)]:
        limiter.record(rows, seconds, 1, 0.0)
    assert limiter.give_up(1, 0.01) == 0, "the model server has nothing more to do"
    assert limiter.give_up(64, 0.03) == pytest.approx(0.47)


def test_a_large_request_takes_as_long_as_its_like_whatever_the_rate_of_small_ones():
    limiter, now = Limiter(), 1000.0
    limiter.begin_to_wait(now)
    for rows, seconds in [(1, 0.01)] * 100 + [(10_000, 0.2)] + [(1, 0.01)] * 2000:
        now += seconds
        limiter.record(rows, seconds, 1, now, waiting=True)
    assert limiter.drain_s(100) == pytest.approx(1, rel=0.2)
    assert limiter.drain_s(10_001) == pytest.approx(0.2)
    assert limiter.drain_s(20 * 10_001, calls=20) == pytest.approx(4.0), "one after the other"
    assert limiter.drain_s(20, calls=20) == pytest.approx(0.2, rel=0.2)


def test_the_call_that_found_the_model_cold_tells_nothing_of_those_that_wait():
    limiter = Limiter()
    limiter.begin_to_wait(0.0)
    limiter.record(1, 5.0, 1, 5.0, waiting=True)
    assert limiter.drain_s(100) == 0, "it is not known"
    limiter.record(1, 0.01, 1, 5.01, waiting=True)
    assert limiter.drain_s(100) == pytest.approx(1, rel=0.1)


def test_calls_too_large_to_be_joined_say_nothing_of_the_others():
    limiter, now = Limiter(max_rows=64), 1000.0
    limiter.begin_to_wait(now)
    for rows, seconds in [(10, 0.1)] * 20 + [(10_000, 1.0)] * 20 + [(10, 0.1)]:
        now += seconds
        limiter.record(rows, seconds, 1, now, waiting=True)
        if now > 1001:
            assert limiter.drain_s(100) == pytest.approx(1, rel=0.3)

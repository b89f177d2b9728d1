"""Which children `sluice up` starts again, with real ones that die at once."""

import sys
import time

import pytest

from service.up import services
from service.up.services import GivenUp, Service

DYING = [sys.executable, "-c", "import sys; print('no such device'); sys.exit(7)"]


def keep_up(service, until=lambda: False):
    deadline = time.monotonic() + 30
    while not until():
        assert time.monotonic() < deadline
        service.keep_up()
        time.sleep(0.01)


def test_one_that_dies_before_it_answers_is_not_started_again():
    with pytest.raises(GivenUp) as caught:
        keep_up(Service("clock", DYING, lambda: False))
    assert str(caught.value) == (
        "The clock ended with status 7; its last lines:\n    no such device"
    )


def test_one_that_keeps_dying_is_given_up_with_its_last_words(monkeypatch, capfd):
    monkeypatch.setattr(services, "FIRST_PAUSE_S", 0.125)
    with pytest.raises(GivenUp) as caught:
        keep_up(Service("clock", DYING, lambda: True))
    assert str(caught.value) == (
        "The clock ended with status 7; its last lines:\n    no such device\n"
        "It has died 3 times within 60 s, or before it answered again, and is not started any more"
    )
    lines = [line for line in capfd.readouterr().err.splitlines() if "started again" in line]
    assert lines == [
        f"[sluice] The clock ended with status 7; it is started again in {pause_s} s"
        for pause_s in ("0.125", "0.25")
    ]


def test_slow_deaths_without_an_answer_between_count(monkeypatch):
    monkeypatch.setattr(services, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(services, "WITHIN_S", 0.0)
    answers = iter([True])
    with pytest.raises(GivenUp, match="It has died 3 times"):
        keep_up(Service("clock", DYING, lambda: next(answers, False)))


def test_deaths_long_past_do_not_count(monkeypatch):
    monkeypatch.setattr(services, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(services, "WITHIN_S", 0.0)
    started = []
    service = Service("clock", DYING, lambda: bool(started.append(1)) or True)
    keep_up(service, until=lambda: len(started) >= 5)
    service.stop(1)

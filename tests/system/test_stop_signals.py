"""Being told to stop at any moment of a wait: `sluice up` was once found hanging after SIGTERM."""

import subprocess
import sys

import pytest

# An interval timer signals this very thread, a microsecond later each time, until the wait is over
# before the signal. Where a handler takes a lock that the wait holds, this never ends.
AT_EVERY_MOMENT = """
import itertools, signal, sys, time
from service.up.signals import StopSignals

overtaken = 0
for microseconds in itertools.cycle(range(1, 2000)):
    with StopSignals([signal.SIGALRM]) as stop:
        signal.setitimer(signal.ITIMER_REAL, microseconds / 1e6, 0.0001)  # and again, and again
        heard = stop.wait(0.0005)
        while not heard:
            overtaken += 1
            heard = stop.wait(1)
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert stop.received == signal.SIGALRM
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    if overtaken == ROUNDS:
        break
"""


@pytest.fixture
def run():
    def run(code):
        return subprocess.run(
            [sys.executable, "-P", "-c", code],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def test_a_signal_at_every_moment_of_a_wait_ends_it(run):
    outcome = run(AT_EVERY_MOMENT.replace("ROUNDS", "1000"))
    assert (outcome.returncode, outcome.stderr) == (0, "")


def test_signals_that_come_while_the_first_is_obeyed_change_nothing(run):
    outcome = run(
        """
import os, signal
from service.up.signals import StopSignals

with StopSignals() as stop:
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        os.kill(os.getpid(), number)
        assert stop.wait(10) and stop.received == signal.SIGHUP
for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
    os.kill(os.getpid(), number)
"""
    )
    assert (outcome.returncode, outcome.stderr) == (0, "")


def test_under_nohup_a_closed_terminal_changes_nothing(run):
    outcome = run(
        """
import os, signal
from service.up.signals import StopSignals

signal.signal(signal.SIGHUP, signal.SIG_IGN)
with StopSignals() as stop:
    os.kill(os.getpid(), signal.SIGHUP)
    assert not stop.wait(0.01)
"""
    )
    assert (outcome.returncode, outcome.stderr) == (0, "")


def test_in_the_background_of_a_script_an_interrupt_is_meant(run):
    outcome = run(
        """
import os, signal
from service.up.signals import StopSignals

signal.signal(signal.SIGINT, signal.SIG_IGN)
with StopSignals() as stop:
    os.kill(os.getpid(), signal.SIGINT)
    assert stop.wait(10)
"""
    )
    assert (outcome.returncode, outcome.stderr) == (0, "")


def test_what_the_suite_starts_ignores_no_signal(run):
    outcome = run(
        """
import signal

assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
"""
    )
    assert (outcome.returncode, outcome.stderr) == (0, "")


def test_nor_does_it_where_the_suite_was_started_so():
    this = f"{__file__}::test_what_the_suite_starts_ignores_no_signal"
    suite = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", this]
    ignoring = ["sh", "-c", 'trap "" HUP INT && exec "$@"', "sh", *suite]
    outcome = subprocess.run(ignoring, capture_output=True, text=True, timeout=300, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr

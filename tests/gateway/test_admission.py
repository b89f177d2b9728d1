"""Places and bytes are bounded for each model and in all, and given back whatever happens."""

import pytest

from service.gateway.access_log import AccessLog
from service.gateway.admission import Admission
from service.gateway.errors import Busy, PayloadTooLarge
from service.gateway.settings import Settings
from service.gateway.telemetry import Telemetry


class Lines:
    """A Joining of which Admission asks only whether there is a use in waiting."""

    def __init__(self):
        self.full = set()
        self.asked = []

    def check_wait(self, model, left_s):
        self.asked.append((model, left_s))
        if model in self.full:
            raise Busy(f"{model} waits")


@pytest.fixture
def lines():
    return Lines()


@pytest.fixture
def telemetry():
    return Telemetry(AccessLog("off"))


@pytest.fixture
def admission(lines, telemetry):
    settings = Settings(places=4, model_places=3, max_body_bytes=100, max_bytes_in_flight=250)
    return Admission(settings, lines, telemetry)


def place(admission, model="m", size=10):
    """A place that is taken, and is given back with `__exit__`."""
    taken = admission.place(model, size, 5.0)
    taken.__enter__()
    return taken


def give_back(taken):
    taken.__exit__(None, None, None)


def refused(telemetry):
    text = telemetry.exposition()[0].decode()
    lines = [line for line in text.splitlines() if line.startswith("sluice_refused_total")]
    return {line.split('"')[1]: float(line.rpartition(" ")[2]) for line in lines}


def test_a_model_has_its_places_and_leaves_some_to_others(admission):
    held = [place(admission) for _ in range(3)]
    with pytest.raises(Busy, match=r'All 3 places of the model "m" are taken \(SLUICE_MODEL'):
        place(admission)
    other = place(admission, "other")
    with pytest.raises(Busy, match=r"All 4 places are taken \(SLUICE_PLACES"):
        place(admission, "third")
    assert (admission.in_flight, admission.bytes_in_flight) == (4, 40)
    give_back(held.pop())
    place(admission, "third")
    give_back(other)
    place(admission)


def test_everything_is_given_back_however_it_ends(admission):
    for error in (ValueError, Busy, KeyboardInterrupt):
        with pytest.raises(error), admission.place("m", 10, 5.0):
            raise error("ended")
    with pytest.raises(Busy), admission.arriving("m", 10, 5.0) as arrival:
        arrival.hold(90)
        raise Busy("ended before it had a place")
    assert (admission.in_flight, admission.bytes_in_flight) == (0, 0)
    assert not admission._by_model, "a model that is gone is forgotten"


def test_the_bytes_in_flight_are_bounded_as_they_come(admission):
    first = place(admission, "a", 100)
    with admission.arriving("b", 0, 5.0) as other, admission.arriving("b", 0, 5.0) as arrival:
        other.hold(90)
        assert (admission.in_flight, admission.bytes_in_flight) == (1, 190)
        with pytest.raises(Busy, match="SLUICE_MAX_BYTES_IN_FLIGHT"):
            arrival.hold(61)
        assert admission.bytes_in_flight == 190
        arrival.hold(60)
    assert admission.bytes_in_flight == 100
    give_back(first)
    assert admission.bytes_in_flight == 0


def test_what_is_announced_too_large_is_refused_unread(admission, telemetry):
    with pytest.raises(PayloadTooLarge):
        place(admission, size=101)
    with pytest.raises(PayloadTooLarge), admission.arriving("m", 101, 5.0):
        raise AssertionError("let in")
    assert admission.in_flight == 0
    assert refused(telemetry) == {"PayloadTooLarge": 2}


def test_what_grows_too_large_unannounced_is_refused_and_counted(admission, telemetry):
    with admission.arriving("m", 0, 5.0) as arrival:
        for _ in range(2):
            arrival.hold(50)
        with pytest.raises(PayloadTooLarge):
            arrival.hold(1)
    assert admission.bytes_in_flight == 0
    assert refused(telemetry) == {"PayloadTooLarge": 1}


def test_a_body_on_its_way_takes_no_place(admission):
    with admission.arriving("m", 10, 5.0), admission.arriving("m", 10, 5.0):
        held = [place(admission) for _ in range(3)]
        with pytest.raises(Busy):
            place(admission)
        for each in held:
            give_back(each)
    with admission.arriving("m", 10, 5.0) as arrival:
        held = [place(admission) for _ in range(3)]
        with pytest.raises(Busy):
            arrival.take_place()
        give_back(held[0])
        arrival.take_place()
        assert admission.in_flight == 3


def test_a_place_is_of_the_model_that_it_turns_out_to_be_for(admission):
    held = [place(admission) for _ in range(2)]
    with admission.place("", 10, 5.0) as arrival:
        arrival.move("m")
        assert (admission.in_flight, admission._by_model) == (3, {"m": 3})
        with pytest.raises(Busy), admission.place("", 10, 5.0) as late:
            late.move("m")
        assert (admission.in_flight, admission.bytes_in_flight) == (3, 30)
    for each in held:
        give_back(each)
    assert (admission.in_flight, admission.bytes_in_flight) == (0, 0)


def test_no_one_waits_where_there_is_no_use_in_it(admission, lines, telemetry):
    lines.full.add("m")
    with pytest.raises(Busy, match="m waits"):
        place(admission)
    place(admission, "other")
    assert [model for model, _ in lines.asked] == ["m", "other"]
    assert all(4 < left_s <= 5 for _, left_s in lines.asked)
    assert refused(telemetry) == {"Busy": 1}

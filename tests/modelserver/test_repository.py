"""Repository: who is loaded and unloaded when; a stand-in takes the SavedModel's place."""

import shutil
import sys
import threading

import pytest

from service.modelserver.errors import FailedPrecondition, InvalidArgument, NotFound, Unknown
from service.modelserver.repository import Repository, RepositoryOptions
from sluice.wire.contract import State
from sluice.wire.protos.serving_pb2 import ModelConfig, ModelSpec

QUICK = RepositoryOptions(poll_s=0.02, load_threads=2, load_retry_interval_s=0.05)


class Loader:
    """Loads stand-ins; versions in `broken` fail, those in `held` wait to be let go."""

    def __init__(self):
        self.attempts, self.closed, self.broken = [], [], set()
        self.held, self.go = set(), threading.Event()

    def __call__(self, version):
        key = version.model, version.number
        self.attempts.append(key)
        if key in self.held:
            assert self.go.wait(10)
        if key in self.broken:
            raise ValueError("broken")
        return StandIn(self, key)


class StandIn:
    def __init__(self, loader, key):
        self._loader, self.key = loader, key

    def close(self):
        self._loader.closed.append(self.key)


@pytest.fixture
def load():
    return Loader()


@pytest.fixture
def site(tmp_path, load):
    site = Site(tmp_path, load)
    yield site
    load.go.set()
    site.repository.stop()


class Site:
    """A started repository for the model `m`, and its directory."""

    def __init__(self, directory, load, options=QUICK):
        self.base = directory / "m"
        self.base.mkdir()
        self.repository = Repository(load, options)
        self.repository.configure([self.config()])
        self.repository.start()

    def config(self, **fields):
        return ModelConfig(name="m", base_path=str(self.base), **fields)

    def publish(self, *versions):
        for version in versions:
            (self.base / str(version)).mkdir()

    def states(self):
        try:
            return {
                status.version: status.state
                for status in self.repository.status(ModelSpec(name="m"))
            }
        except NotFound:
            return {}

    def key(self, **spec):
        with self.repository.lease(ModelSpec(name="m", **spec)) as (_, servable):
            return servable.key


def test_a_version_stays_while_a_request_uses_it(site, load, until):
    site.publish(1)
    until(lambda: site.states() == {1: State.AVAILABLE})
    with site.repository.lease(ModelSpec(name="m")) as (number, _):
        site.publish(2)
        until(lambda: site.states() == {1: State.UNLOADING, 2: State.AVAILABLE})
        assert number == 1
        assert site.key() == ("m", 2)
        assert not load.closed
    until(lambda: site.states() == {1: State.END, 2: State.AVAILABLE})
    assert load.closed == [("m", 1)]


def test_a_slow_load_stalls_neither_requests_nor_other_loads(site, load, until):
    load.held = {("m", 2)}
    site.publish(1, 2)
    site.repository.configure([site.config(model_version_policy={"all": {}})])
    until(lambda: site.states() == {1: State.AVAILABLE, 2: State.LOADING})
    assert site.key() == ("m", 1)


def test_a_failed_version_is_tried_again_only_so_often(tmp_path, load, until):
    site = Site(tmp_path, load, QUICK._replace(max_load_retries=2))
    load.broken = {("m", 1)}
    site.publish(1)
    until(lambda: len(load.attempts) == 3)
    site.repository.wait_until_settled()
    [status] = site.repository.status(ModelSpec(name="m"))
    assert (status.state, status.status.error_message) == (State.END, "ValueError: broken")
    site.repository.wait_until_settled()
    assert len(load.attempts) == 3
    load.broken.clear()
    (site.base / "1" / "file").write_text("it has changed")
    until(lambda: site.states() == {1: State.AVAILABLE})
    site.repository.stop()


def test_what_is_loaded_outlives_a_directory_that_goes_away(site, until):
    site.publish(1)
    until(lambda: site.states() == {1: State.AVAILABLE})
    shutil.move(site.base, site.base.with_name("away"))
    site.repository.wait_until_settled()
    assert site.key() == ("m", 1)
    shutil.move(site.base.with_name("away"), site.base)
    shutil.rmtree(site.base / "1")
    until(lambda: site.states() == {1: State.END})


def test_a_version_that_was_unloaded_can_come_back(site, until):
    site.publish(2)
    until(lambda: site.states() == {2: State.AVAILABLE})
    site.publish(1)
    shutil.rmtree(site.base / "2")
    until(lambda: site.states() == {1: State.AVAILABLE, 2: State.END})
    site.publish(2)
    until(lambda: site.states() == {1: State.END, 2: State.AVAILABLE})


def test_stopping_unloads_everything(tmp_path, load, until):
    site = Site(tmp_path, load)
    site.publish(1)
    until(lambda: site.states() == {1: State.AVAILABLE})
    site.repository.stop()
    assert site.states() == {1: State.END}
    assert load.closed == [("m", 1)]


# ---- finding ----


def test_a_spec_finds_the_latest_a_version_or_a_label(site, until):
    site.publish(1, 2)
    everything = {"model_version_policy": {"all": {}}}
    site.repository.configure([site.config(**everything)])
    until(lambda: site.states() == {1: State.AVAILABLE, 2: State.AVAILABLE})
    site.repository.configure([site.config(**everything, version_labels={"old": 1})])
    assert site.key() == ("m", 2)
    assert site.key(version={"value": 1}) == ("m", 1)
    assert site.key(version_label="old") == ("m", 1)


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ({}, InvalidArgument, "ModelSpec has no name specified."),
        ({"name": "n"}, NotFound, r"Servable not found for request: Latest\(n\)"),
        ({"name": "m", "version": {"value": 9}}, NotFound, r"Specific\(m, 9\)"),
        ({"name": "m", "version_label": "x"}, InvalidArgument, "version label: x"),
    ],
)
def test_a_spec_that_finds_nothing_says_what_it_asked_for(site, spec, error, message):
    with pytest.raises(error, match=message), site.repository.lease(ModelSpec(**spec)):
        pass


# ---- labels, as ServerCore::UpdateModelVersionLabelMap allows them ----


@pytest.mark.parametrize(
    ("options", "first", "second"),
    [
        (QUICK, False, False),
        (QUICK._replace(unavailable_labels=True), True, False),
        (QUICK._replace(any_unavailable_labels=True), True, True),
    ],
    ids=["none", "new ones", "any"],
)
def test_a_label_on_a_version_that_is_not_there(tmp_path, load, options, first, second):
    repository = Repository(load, options)

    def label(version):
        try:
            repository.configure(
                [ModelConfig(name="m", base_path=str(tmp_path), version_labels={"new": version})]
            )
        except FailedPrecondition:
            return False
        return True

    assert label(8) is first
    assert label(9) is second


def test_a_reload_waits_for_the_models_that_are_new(site, load, tmp_path):
    (tmp_path / "n" / "1").mkdir(parents=True)
    new = ModelConfig(name="n", base_path=str(tmp_path / "n"))
    site.repository.reload([site.config(), new])
    assert site.repository.status(ModelSpec(name="n"))[0].state == State.AVAILABLE
    load.broken = {("b", 1)}
    (tmp_path / "b" / "1").mkdir(parents=True)
    with pytest.raises(Unknown, match="name: b version: -1"):
        site.repository.reload([new, ModelConfig(name="b", base_path=str(tmp_path / "b"))])


def test_no_request_falls_between_two_versions(site, until):
    """The version that a request found may be unloaded before the request holds it."""
    site.publish(1)
    until(lambda: site.states() == {1: State.AVAILABLE})
    stop, failures = threading.Event(), []

    def ask():
        while not stop.is_set():
            try:
                site.key()
            except NotFound as error:
                failures.append(error)

    askers = [threading.Thread(target=ask) for _ in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    for asker in askers:
        asker.start()
    for version in range(2, 60):
        site.publish(version)
        until(lambda: site.states()[version - 1] == State.END)  # noqa: B023 (called at once)
    stop.set()
    sys.setswitchinterval(interval)
    for asker in askers:
        asker.join()
    assert not failures

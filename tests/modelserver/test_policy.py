"""Which version directories count, and which of them a policy chooses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.modelserver.policy import VersionPolicy, choose_versions, find_models, fingerprint
from sluice.wire.versions import find_versions

PRESENT = {1: "1", 2: "2", 10: "10"}


@pytest.mark.parametrize(
    ("policy", "chosen"),
    [
        ({}, {10}),
        ({"latest": {}}, {10}),
        ({"latest": {"num_versions": 2}}, {2, 10}),
        ({"latest": {"num_versions": 9}}, {1, 2, 10}),
        ({"all": {}}, {1, 2, 10}),
        ({"specific": {"versions": [1, 3]}}, {1}),
        ({"specific": {}}, set()),
    ],
)
def test_a_policy_chooses_among_what_is_there(policy, chosen):
    assert set(choose_versions(VersionPolicy(**policy), PRESENT)) == chosen


@given(present=st.sets(st.integers(0, 2**63 - 1)), count=st.integers(1, 5))
def test_the_latest_are_never_older_than_those_left_out(present, count):
    chosen = set(
        choose_versions(VersionPolicy(latest={"num_versions": count}), dict.fromkeys(present, ""))
    )
    assert len(chosen) == min(count, len(present))
    assert all(kept > left for kept in chosen for left in present - chosen)


def test_only_directories_named_by_integers_are_versions(tmp_path):
    for name in ("1", "0002", "10", "3.tmp", "v4", "five", "9" * 19, "9" * 20):
        (tmp_path / name).mkdir()
    (tmp_path / "6").write_text("a file")
    assert set(find_versions(tmp_path)) == {1, 2, 10}


def test_a_link_to_a_directory_is_a_version_and_a_broken_one_is_none(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "1").symlink_to(tmp_path / "store")
    (tmp_path / "2").symlink_to(tmp_path / "gone")
    assert set(find_versions(tmp_path)) == {1}


def test_a_directory_that_cannot_be_listed_is_an_error_and_not_an_empty_one(tmp_path):
    with pytest.raises(FileNotFoundError):
        find_versions(tmp_path / "gone")
    with pytest.raises(FileNotFoundError):
        find_models(tmp_path / "gone")


def test_a_model_is_a_directory_with_a_version(tmp_path):
    for path in ("model/1", "empty", "other/notes", ".hidden/1"):
        (tmp_path / path).mkdir(parents=True)
    assert list(find_models(tmp_path)[0]) == ["model"]


def test_a_fingerprint_changes_with_the_files(tmp_path):
    before = fingerprint(tmp_path)
    (tmp_path / "variables").mkdir()
    assert fingerprint(tmp_path) == before
    (tmp_path / "variables" / "data").write_text("x")
    assert fingerprint(tmp_path) != before

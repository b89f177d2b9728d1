"""store.sh, the script that carries models between a bucket and a directory, with a real rclone
before a real S3 endpoint: rclone's own."""

import signal
import subprocess
import time

import pytest

from tests.delivery.kubernetes.toy_bucket import SCRIPTS, version

pytestmark = pytest.mark.clients


def wait_until(condition, timeout_s=40):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def run(tools, bucket, tmp_path):
    """`run(verb)` -> the finished process; with `start=True` a running one."""
    _, store = bucket
    environment = store | {
        "PATH": f"{tools}:/usr/bin:/bin",
        "MODELS": str(tmp_path / "models"),
        "MODELS_CONFIG": str(tmp_path / "models.config"),
        "FOLLOW_S": "0.3",
    }
    (tmp_path / "models").mkdir()

    def run(verb, start=False, **more):
        command = ["sh", SCRIPTS / "store.sh", verb]
        if start:
            return subprocess.Popen(command, env=environment | more)
        return subprocess.run(
            command,
            env=environment | more,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run


def names(directory):
    """What a model server may see below a model: no name begins with a dot."""
    return sorted(each.name for each in (directory / "digits").glob("*"))


def test_what_is_published_is_fetched_as_it_was(run, tmp_path):
    models, elsewhere = tmp_path / "models", tmp_path / "elsewhere"
    elsewhere.mkdir()
    version(elsewhere, 1), version(elsewhere, 2, "another graph")
    assert run("publish", MODELS=str(elsewhere)).returncode == 0
    assert run("fetch").returncode == 0
    assert names(models) == ["1", "2"]
    for path in (elsewhere / "digits").rglob("*"):
        copy = models / path.relative_to(elsewhere)
        assert path.is_dir() or copy.read_text() == path.read_text()


def test_a_version_that_is_half_uploaded_is_not_there_yet(run, bucket, tmp_path):
    folder, _ = bucket
    version(folder, 1)
    (version(folder, 2) / "saved_model.pb").unlink()
    assert run("fetch").returncode == 0
    assert names(tmp_path / "models") == ["1"]


def test_a_fetch_that_was_cut_off_leaves_nothing_in_the_way(run, bucket, tmp_path):
    folder, _ = bucket
    version(folder, 1)
    left = tmp_path / "models/digits/.fetching-1/variables"
    left.mkdir(parents=True)
    (left / "old").touch()
    assert run("fetch").returncode == 0
    assert not (tmp_path / "models/digits/1/variables/old").exists()
    assert names(tmp_path / "models") == ["1"]


def test_following_brings_what_is_new_and_takes_what_is_gone(run, bucket, tmp_path):
    folder, _ = bucket
    models = tmp_path / "models"
    version(folder, 1)
    follower = run("follow", start=True)
    wait_until(lambda: names(models) == ["1"])
    seen = version(tmp_path / "elsewhere", 2)
    seen.rename(folder / "digits/2")
    wait_until(lambda: names(models) == ["1", "2"])
    (folder / "digits/1/saved_model.pb").unlink()
    wait_until(lambda: names(models) == ["2"])
    began = time.monotonic()
    follower.send_signal(signal.SIGTERM)
    assert follower.wait(20) == 0
    assert time.monotonic() - began < 10


def test_the_newest_versions_are_fetched_and_older_ones_go(run, bucket, tmp_path):
    folder, _ = bucket
    for number in (1, 2, 9, 10):
        version(folder, number)
    outcome = run("fetch")
    assert outcome.stdout.split() == ["fetched", "digits/10", "fetched", "digits/9"]
    version(folder, 11)
    wait_until(lambda: run("fetch").stdout)  # rclone's server looks at its folder once a second
    assert names(tmp_path / "models") == ["10", "11"]
    assert run("fetch", KEEP_VERSIONS="1").returncode == 0
    assert names(tmp_path / "models") == ["11"]


def test_only_the_listed_models_are_fetched_and_what_the_list_names_by_number(
    run, bucket, tmp_path
):
    folder, _ = bucket
    for number in (1, 2, 3, 4, 5):
        version(folder, number)
    version(folder, 1, model="flowers")
    (tmp_path / "models.config").write_text(
        """model_config_list {
          # config { name: "flowers" }
          config {
            name: "digits" base_path: "/models/digits"
            model_version_policy { specific { versions: 5 versions:2 } }
            version_labels { key: "stable" value: 1 }
          }
        }"""
    )
    assert run("fetch", KEEP_VERSIONS="1").returncode == 0
    assert names(tmp_path / "models") == ["1", "2", "5"]
    assert not (tmp_path / "models/flowers").exists()


def test_a_list_of_none_that_the_bucket_has_takes_nothing_away(run, bucket, tmp_path):
    version(bucket[0], 1)
    assert run("fetch").returncode == 0
    (tmp_path / "models.config").write_text('model_config_list { config { name: "digitz" } }')
    outcome = run("fetch")
    assert outcome.returncode == 0 and "no version of a listed model" in outcome.stdout
    assert names(tmp_path / "models") == ["1"]


def test_a_bucket_that_lists_nothing_takes_nothing_away(run, tmp_path):
    version(tmp_path / "models", 1)
    outcome = run("fetch")
    assert outcome.returncode == 0 and "no version" in outcome.stdout
    assert names(tmp_path / "models") == ["1"]


def test_a_bucket_that_cannot_be_read_is_an_error_and_takes_nothing_away(run, tmp_path):
    version(tmp_path / "models", 1)
    outcome = run("fetch", MODEL_STORE="store:nowhere/models")
    assert outcome.returncode != 0
    assert run("publish", RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY="wrong").returncode != 0
    assert names(tmp_path / "models") == ["1"]


def test_a_version_is_complete_only_when_all_of_it_is_up(run, bucket, tmp_path):
    """`publish` that fails half way leaves no saved_model.pb, and the next one ends the work."""
    folder, _ = bucket
    whole = version(tmp_path / "models", 1)
    (whole / "variables/locked").symlink_to(tmp_path / "nothing")  # rclone cannot read it
    run("publish", RCLONE_COPY_LINKS="true")
    assert not (folder / "digits/1/saved_model.pb").exists()
    (whole / "variables/locked").unlink()
    assert run("publish").returncode == 0
    assert (folder / "digits/1/saved_model.pb").exists()
